"""What a visitor asks for, in plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from captum_astro.app.settings import Settings
from captum_astro.data.view import Fit
from captum_astro.models.image_text import reads_text
from captum_astro.wording import counted

_LONGEST = 500  # characters of a text


@dataclass(frozen=True)
class ModelWish:
    """A model: its name, a weights file of the app's folder, and for an image-text model its texts."""

    name: str
    checkpoint: str | None = None
    prompts: tuple[str, ...] = ()

    @property
    def reads_text(self) -> bool:
        """Whether its outputs are similarities to texts."""
        return reads_text(self.name)


@dataclass(frozen=True)
class Wish:
    """An explanation.

    Attributes:
        model: The model.
        image: The name of the image.
        methods: Names of methods.
        target: The class, by index or name; None for the most probable one.
        against: The class to compare it with; None for none.
        crop: As in `captum_astro.explain`.
        vita: The arguments of `captum_astro.ViTA`; None for the model without astrocytes.
    """

    model: ModelWish
    image: str
    methods: tuple[str, ...]
    target: str | int | None = None
    against: str | int | None = None
    crop: Fit = "center"
    vita: dict[str, Any] | None = None

    @property
    def targets(self) -> list[str | int | None]:
        """The classes to explain."""
        return [self.target] if self.against is None else [self.target, self.against]


def model_wish(name: str | None, checkpoint: str | None, prompts: str | None, settings: Settings) -> ModelWish:
    """The model that the fields of the page describe.

    Args:
        name: Its name.
        checkpoint: The name of a weights file.
        prompts: A text on each line.
        settings: What the app offers.

    Raises:
        ValueError: If no model is named, it is not offered, or an image-text model has less than two texts or too many.

    Example:
        >>> model_wish(" test_vit ", "", "", Settings())
        ModelWish(name='test_vit', checkpoint=None, prompts=())
    """
    name = (name or "").strip()
    if not name:
        raise ValueError("No model is named: choose one, such as scenes_vit_tiny_patch4_64.")
    if settings.models and name not in settings.models:
        raise ValueError(f"{name} is not offered here. Choose one of {', '.join(settings.models)}.")
    if not reads_text(name):
        return ModelWish(name, checkpoint or None)
    texts = tuple(dict.fromkeys(line.strip() for line in (prompts or "").splitlines() if line.strip()))
    if not 2 <= len(texts) <= settings.prompts:
        raise ValueError(
            f"{name} compares an image with texts: give from 2 to {settings.prompts}, each on a line of its own; there "
            f"{'is' if len(texts) == 1 else 'are'} {counted(len(texts), 'text')}."
        )
    if any(len(text) > _LONGEST for text in texts):
        raise ValueError(f"A text may have {_LONGEST} characters at most: shorten the longest one.")
    return ModelWish(name, checkpoint or None, texts)


def wanted_class(value: str | int | None) -> str | int | None:
    """A class as the page has it: a number, a name, or nothing.

    Example:
        >>> wanted_class(" tabby "), wanted_class(""), wanted_class(281)
        ('tabby', None, 281)
    """
    if isinstance(value, str):
        return value.strip() or None
    return value
