"""A task: a model with its data, and the options that define it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from captum_astro.training.batches import Batch, Source
from captum_astro.training.optimiser import adamw, warm_up_cosine
from captum_astro.training.options import Options

Loss = Callable[[nn.Module, Batch], tuple[torch.Tensor, torch.Tensor]]
"""The loss of a batch, and the basis of the metric: the fraction of correct answers, or the mean cross-entropy."""


def _no_figures(model: nn.Module) -> dict[str, float]:
    del model
    return {}


def _no_samples(model: nn.Module) -> torch.Tensor:
    del model
    return torch.zeros(0, dtype=torch.float64)


@dataclass
class Task:
    """A model with its data.

    Attributes:
        trained: The module to train, on the device of the batches.
        source: Training batches.
        loss: See `Loss`.
        evaluate: The metric of the trained module on validation data, in eval mode without gradients.
        test: Results of the final model on test data by name, the metric first.
        samples: The final model on each test sample, float64, ``(N,)``: the mean is the accuracy, or the logarithm of
            the perplexity.
        inner: The final model, if the trained module contains more.
    """

    trained: nn.Module
    source: Source
    loss: Loss
    evaluate: Callable[[nn.Module], float]
    test: Callable[[nn.Module], dict[str, float]] = _no_figures
    samples: Callable[[nn.Module], torch.Tensor] = _no_samples
    inner: nn.Module | None = None

    @property
    def model(self) -> nn.Module:
        """The final model."""
        return self.trained if self.inner is None else self.inner


@dataclass(frozen=True, kw_only=True)
class Config(Options, ABC):
    """Options that define a task."""

    @abstractmethod
    def prepare(self, folder: Path, device: torch.device | str) -> Task:
        """Read the data and build the model; a tokeniser is trained and saved in the folder, or read from it.

        Raises:
            ValueError: If the data cannot be read, or an option is out of range.
        """

    @abstractmethod
    def build(self, folder: Path) -> nn.Module:
        """The model alone, with random weights."""

    def optimiser(self, task: Task) -> Optimizer:
        """AdamW over the trained module."""
        return adamw(task.trained, self.lr, self.weight_decay)

    def schedule(self, optimiser: Optimizer, steps: int) -> LRScheduler:
        """Warm-up and a cosine."""
        return warm_up_cosine(optimiser, steps, self.warm_up)

    def total_steps(self, source: Source) -> int:
        """Of the run."""
        return self.steps or max(1, round(self.epochs * source.steps_per_epoch(self.batch_size)))
