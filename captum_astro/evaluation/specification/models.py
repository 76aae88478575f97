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
        name: As timm knows it.
        checkpoint: A file of weights, if they are not the published ones.
        classes: How many it has, if not as many as published.
        vita: What `captum_astro.ViTA` takes after the model, for a model under astrocytes; None for the model itself.
        word: How it was asked for, and what it is called in the rows; by default the name.
    """

    name: str
    checkpoint: Path | None = None
    classes: int | None = None
    vita: Mapping[str, Any] | None = field(default=None)
    word: str = ""

    @property
    def title(self) -> str:
        """Its name in the rows, unless it comes with several checkpoints."""
        return self.word or (self.name if self.vita is None else f"{_VITA}:{self.name}")


def model_of(word: str, checkpoint: Path | None = None, classes: int | None = None) -> ModelChoice:
    """A model by a word.

    Args:
        word: A timm name; or ``vita:NAME`` with options of `captum_astro.ViTA` after colons, as
            ``vita:NAME:layer=blocks.0.mlp.fc1:alpha=1.5``. What is not named is as published.
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
    names = [part for part in parts if "=" not in part]  # a name may have colons itself, as hf-hub:timm/NAME
    name = ":".join(parts[: len(names)])
    if not name or names != parts[: len(names)]:
        raise ValueError(f"--models {word!r}: it is {_VITA}:NAME, then options as NAME=VALUE with colons between them.")
    options = parts[len(names) :]
    vita = named_values(f"{_VITA}:{name}", options, options_of(ViTA.__init__, without=["model"]))
    return ModelChoice(name, checkpoint, classes, vita, ":".join([_VITA, name, *options]))
