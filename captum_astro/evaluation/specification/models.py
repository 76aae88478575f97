"""The models of a benchmark, by timm's names; ``vita:NAME`` is a model under astrocytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from captum_astro.astro.vita import ViTA
from captum_astro.options import named_values, options_of

_VITA = "vita"


@dataclass(frozen=True)
class ModelChoice:
    """A model of a benchmark.

    Attributes:
        name: Its timm name.
        checkpoint: A weights file, if the published weights are not used.
        classes: Number of classes; by default the checkpoint's, otherwise the published model's.
        vita: Arguments of `captum_astro.ViTA` after the model, for a model under astrocytes; None for the model itself.
        word: The specification, also used as the name in the rows; by default the name.
    """

    name: str
    checkpoint: Path | None = None
    classes: int | None = None
    vita: Mapping[str, Any] | None = field(default=None)
    word: str = ""

    @property
    def title(self) -> str:
        """Its name in the rows, unless it has several checkpoints."""
        return self.word or (self.name if self.vita is None else f"{_VITA}:{self.name}")


def model_of(word: str, checkpoint: Path | None = None, classes: int | None = None) -> ModelChoice:
    """Parse the specification of a model.

    Args:
        word: A timm name; or ``vita:NAME`` with options of `captum_astro.ViTA` after colons, such as
            ``vita:NAME:layer=blocks.0.mlp.fc1:alpha=1.5``. Options that are not given have their published values.
        checkpoint: As in `ModelChoice`.
        classes: As in `ModelChoice`.

    Raises:
        ValueError: If ``vita:`` has no name after it, an option is unknown, or a value is not accepted.

    Example:
        >>> choice = model_of("vita:deit_tiny_patch16_224:alpha=1.5")
        >>> choice.name, choice.vita, choice.title
        ('deit_tiny_patch16_224', {'alpha': 1.5}, 'vita:deit_tiny_patch16_224:alpha=1.5')
    """
    first, *parts = (part.strip() for part in word.split(":"))
    if first.lower() != _VITA:
        return ModelChoice(word.strip(), checkpoint, classes)
    names = [part for part in parts if "=" not in part]  # a name may contain colons itself, such as hf-hub:timm/NAME
    name = ":".join(parts[: len(names)])
    if not name or names != parts[: len(names)]:
        raise ValueError(f"--models {word!r}: it is {_VITA}:NAME, then options as NAME=VALUE with colons between them.")
    options = parts[len(names) :]
    vita = named_values(f"{_VITA}:{name}", options, options_of(ViTA.__init__, without=["model"]))
    return ModelChoice(name, checkpoint, classes, vita, ":".join([_VITA, name, *options]))
