"""What a run is: its options, and what they become."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from captum_astro.functional.astromorphic import Nonlinearity
from captum_astro.models.astromorphic import AttentionKind
from captum_astro.storage import RECORD, begin, read_record
from captum_astro.training.batches import Source
from captum_astro.training.curve import Metric
from captum_astro.training.fit import Loss
from captum_astro.training.optimiser import adamw, warm_up_cosine


@dataclass
class Task:
    """A model with its data.

    Attributes:
        model: What is kept.
        trained: What is trained: the model, or a module around it.
        source: Training batches.
        loss: Of a batch.
        evaluate: The metric on validation data.
        test: Figures on test data by name, the metric first.
    """

    model: nn.Module
    trained: nn.Module
    source: Source
    loss: Loss
    evaluate: Callable[[nn.Module], float]
    test: Callable[[nn.Module], dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Config(ABC):
    """The options that every task has; all of them together determine a run.

    Attributes:
        data: Where the data are.
        attention: ``"astromorphic"`` or ``"softmax"``; the next three options are the former's.
        nonlinearity: Where sigma stands.
        alpha: Exponent of the calcium response.
        relative_position: Whether astrocytes write.
        dim: Width.
        depth: Blocks.
        heads: Divides ``dim``.
        mlp_ratio: Hidden width of the feed-forward layers over ``dim``.
        drop: Dropout.
        epochs: Passes over the training data.
        steps: Steps of the optimiser instead.
        batch_size: Samples a step.
        lr: The highest learning rate.
        weight_decay: Of AdamW.
        warm_up: Share of the steps in which the rate rises.
        clip: The longest gradient.
        seed: Of weights, order, augmentation and dropout.
        keep: Which weights are tested and written: those of the row of the curve that is best on validation data, or
            the last.
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
                raise ValueError(f"{name} is above 0, not {value!r}.")
        if self.keep not in ("best", "last"):
            raise ValueError(f"keep is best or last, not {self.keep!r}.")
        for name in ("held_out", "validation"):
            if getattr(self, name, 1) <= 0:
                raise ValueError(f"{name} is above 0, not {getattr(self, name)!r}.")
        for name in ("drop", "warm_up"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 0 and below 1, not {getattr(self, name)!r}.")

    @abstractmethod
    def prepare(self, folder: Path, device: torch.device | str) -> Task:
        """Read the data and make the model; a tokeniser is learnt and kept in the folder, or read from it.

        Raises:
            ValueError: If the data cannot be read, or an option is out of its range.
        """

    @abstractmethod
    def build(self, folder: Path) -> nn.Module:
        """The model alone, with random weights."""

    def optimiser(self, task: Task) -> Optimizer:
        """AdamW over what is trained."""
        return adamw(task.trained, self.lr, self.weight_decay)

    def schedule(self, optimiser: Optimizer, steps: int) -> LRScheduler:
        """Warm-up and a cosine."""
        return warm_up_cosine(optimiser, steps, self.warm_up)

    def total_steps(self, source: Source) -> int:
        """Of the run."""
        return self.steps or max(1, round(self.epochs * source.steps_per_epoch(self.batch_size)))

    @property
    def evaluate_every(self) -> int | None:
        """Steps between rows of the curve; None for an epoch."""
        return None

    @property
    def attention_options(self) -> dict[str, Any]:
        """What the models take."""
        return {
            "attention": self.attention,
            "nonlinearity": self.nonlinearity,
            "alpha": self.alpha,
            "relative_position": self.relative_position,
        }

    def as_json(self) -> dict[str, Any]:
        """All options and the task's name."""
        return {"task": self.task, **asdict(self)}


def tasks() -> dict[str, type[Config]]:
    """The tasks by name."""
    from captum_astro.training.cifar10 import Cifar10
    from captum_astro.training.imdb import Imdb
    from captum_astro.training.scenes import ScenesTask
    from captum_astro.training.wikitext2 import WikiText2

    known: tuple[type[Config], ...] = (Cifar10, Imdb, WikiText2, ScenesTask)
    return {kind.task: kind for kind in known}


def configured(task: str, values: dict[str, Any]) -> Config:
    """A task's options from names and values; texts, as from a command line, become what the option is.

    Raises:
        ValueError: If there is no such task or option, or a value does not fit it.

    Example:
        >>> configured("imdb", {"dim": "64", "relative_position": "false"}).dim
        64
    """
    kinds = tasks()
    if task not in kinds:
        raise ValueError(f"There is no task {task!r}. Tasks: {', '.join(kinds)}.")
    options = {field.name: field.default for field in fields(kinds[task]) if field.default is not MISSING}
    for name in values:
        if name not in options:
            raise ValueError(f"{task} has no option {name!r}. Options: {', '.join(options)}.")
    given = {name: _parsed(name, value, options[name]) for name, value in values.items()}
    return kinds[task](**given)


def keep_config(folder: Path, config: Config) -> None:
    """Write the options of a run, or see that those in the folder are the same.

    Raises:
        ValueError: If the folder holds another run, or its options cannot be read.
        OSError: If it cannot be written.
    """
    begin(folder, config.as_json(), "--no-resume to replace it")


def read_config(folder: Path) -> Config:
    """The options of the run in a folder.

    Raises:
        ValueError: If there is none, or it cannot be read.
    """
    try:
        values = read_record(folder / RECORD)
    except FileNotFoundError as error:
        raise ValueError(f"{folder}: no run of training in this folder.") from error
    return configured(str(values.pop("task", "")), values)


def _parsed(name: str, value: Any, default: Any) -> Any:
    if not isinstance(value, str) or isinstance(default, str):
        return value
    kind = int if default is None else type(default)  # what may be None is a number of something
    try:
        if kind is bool:
            return {"true": True, "false": False}[value.lower()]
        return kind(value)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: {value!r} is no value for it; such as {default!r}.") from error
