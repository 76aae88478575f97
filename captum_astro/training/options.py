"""The options common to all runs, independent of model and data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from captum_astro.functional.astromorphic import Nonlinearity
from captum_astro.models.astromorphic import AttentionKind

Metric = Literal["accuracy", "perplexity"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of every task; all of them together determine a run.

    Attributes:
        data: Location of the data.
        attention: ``"astromorphic"`` or ``"softmax"``; the next three options apply to the former.
        nonlinearity: Where sigma is applied.
        alpha: Exponent of the calcium response.
        relative_position: Whether astrocytes write.
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
        keep: Which weights are tested and written: the best on validation data, or the last.
        half: Whether they are written in half precision.
    """

    task: ClassVar[str]
    metric: ClassVar[Metric] = "accuracy"

    data: str = ""
    attention: AttentionKind = "astromorphic"
    nonlinearity: Nonlinearity = "inside"
    alpha: float = 0.25
    relative_position: bool = True
    dim: int = 128
    depth: int = 4
    heads: int = 4
    mlp_ratio: float = 4.0
    drop: float = 0.0
    epochs: float = 10.0
    steps: int | None = None
    batch_size: int = 64
    lr: float = 1e-3
    weight_decay: float = 0.05
    warm_up: float = 0.05
    clip: float = 1.0
    seed: int = 0
    keep: Literal["best", "last"] = "best"
    half: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "steps", "batch_size", "lr", "clip", "dim", "depth", "heads"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, not {value!r}.")
        if self.keep not in ("best", "last"):
            raise ValueError(f"keep must be best or last, not {self.keep!r}.")
        for name in ("held_out", "validation"):
            if getattr(self, name, 1) <= 0:
                raise ValueError(f"{name} must be above 0, not {getattr(self, name)!r}.")
        for name in ("drop", "warm_up"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 0 and below 1, not {getattr(self, name)!r}.")

    @property
    def evaluate_every(self) -> int | None:
        """Steps between rows of the curve; None for an epoch."""
        return None

    @property
    def attention_options(self) -> dict[str, Any]:
        """The arguments of the models."""
        return {
            "attention": self.attention,
            "nonlinearity": self.nonlinearity,
            "alpha": self.alpha,
            "relative_position": self.relative_position,
        }

    def as_json(self) -> dict[str, Any]:
        """All options and the task's name."""
        return {"task": self.task, **asdict(self)}
