"""The options common to all runs, independent of model and data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, get_type_hints

from captum_astro.functional.astromorphic import Nonlinearity
from captum_astro.kinds import Kind, kind_of, number, whole
from captum_astro.models.astromorphic import AttentionKind

Metric = Literal["accuracy", "perplexity"]

Count = Annotated[int, whole(least=1)]
Positive = Annotated[float, number(above=0)]
Fraction = Annotated[float, number(least=0, below=1)]
Share = Annotated[float, number(above=0, below=1)]
Length = Annotated[int, whole(least=2)]
Vocabulary = Annotated[int, whole(least=3)]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of every task; all of them together determine a run.

    Attributes:
        data: Location of the data.
        attention: ``"astromorphic"`` or ``"softmax"``; the next six options apply to the former.
        nonlinearity: Where sigma is applied.
        alpha: Exponent of the calcium response.
        scale: s; by default the number of hidden units per head.
        relative_position: Whether astrocytes write.
        position_scale: The reach of the positions, in tokens; by default the square root of their number.
        output_projection: Whether a linear map follows the heads.
        pos_embed: ``"learn"`` adds a learnt embedding of each position to the tokens, ``"none"`` leaves positions to
            the astrocytes; with either attention.
        dim: Width.
        depth: Blocks.
        heads: Divides ``dim``.
        mlp_ratio: Hidden width of the feed-forward layers over ``dim``.
        drop: Dropout.
        epochs: Passes over the training data.
        steps: Optimiser steps, instead of epochs.
        batch_size: Samples per step.
        lr: Peak learning rate.
        weight_decay: Weight decay of AdamW.
        warm_up: Fraction of the steps used for warm-up.
        clip: Maximum gradient norm.
        seed: Random seed of weights, data order, augmentation and dropout.
        evaluate_every: Steps between validations, each a row of the curve; None for an epoch.
        keep: Which weights are tested and written: the best on validation data, or the last.
        half: Whether they are written in half precision.
    """

    task: ClassVar[str]
    metric: ClassVar[Metric] = "accuracy"

    data: str = ""
    attention: AttentionKind = "astromorphic"
    nonlinearity: Nonlinearity = "inside"
    alpha: Annotated[float, number(least=0)] = 0.25
    scale: Positive | None = None
    relative_position: bool = True
    position_scale: Positive | None = None
    output_projection: bool = False
    pos_embed: Literal["learn", "none"] = "learn"
    dim: Count = 128
    depth: Count = 4
    heads: Count = 4
    mlp_ratio: Positive = 4.0
    drop: Fraction = 0.0
    epochs: Positive = 10.0
    steps: Count | None = None
    batch_size: Count = 64
    lr: Positive = 1e-3
    weight_decay: Annotated[float, number(least=0)] = 0.05
    warm_up: Fraction = 0.05
    clip: Positive = 1.0
    seed: Annotated[int, whole(0, 2**32 - 1)] = 0  # as NumPy's
    evaluate_every: Count | None = None
    keep: Literal["best", "last"] = "best"
    half: bool = False

    def __post_init__(self) -> None:
        for name, kind in self.kinds().items():
            kind.check(name, getattr(self, name))

    @classmethod
    def kinds(cls) -> dict[str, Kind]:
        """The kind of every option's value, by name."""
        hints = get_type_hints(cls, include_extras=True)
        return {field.name: kind_of(hints[field.name]) for field in fields(cls)}

    @property
    def model_options(self) -> dict[str, Any]:
        """The arguments that all models share."""
        return {
            "attention": self.attention,
            "nonlinearity": self.nonlinearity,
            "alpha": self.alpha,
            "scale": self.scale,
            "relative_position": self.relative_position,
            "position_scale": self.position_scale,
            "output_projection": self.output_projection,
            "pos_embed": self.pos_embed,
        }

    def as_json(self) -> dict[str, Any]:
        """All options and the task's name."""
        return {"task": self.task, **asdict(self)}
