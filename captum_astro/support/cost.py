"""What a method costs on a model."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from captum_astro.attr._base import Explanation


def seconds_of_model(model: nn.Module, images: torch.Tensor) -> float:
    """The time of a forward and a backward pass to the pixels, in seconds.

    Args:
        model: The model, in eval mode.
        images: ``(B, C, H, W)``.
    """

    def passes() -> torch.Tensor:
        x = images.clone().requires_grad_(True)
        return torch.autograd.grad(model(x).sum(), x)[0]

    return _seconds(passes)


def seconds_of_method(method: type[Explanation], model: nn.Module, images: torch.Tensor, target: object) -> float:
    """The time of one call of a method, in seconds, without what it does once for a model.

    Args:
        method: Its class.
        model: The model, in eval mode.
        images: ``(B, C, H, W)``.
        target: What to explain, as Captum has it.
    """
    explanation: Any = method(model)

    def explain() -> torch.Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: torch.Tensor = explanation.attribute(images, target=target)
        return found

    return _seconds(explain)


def _seconds(run: Callable[[], torch.Tensor]) -> float:
    """The time of the faster of two runs after one that is not counted, each until its result has arrived."""
    run()
    found = []
    for _ in range(2):
        started = time.perf_counter()
        run().cpu()
        found.append(time.perf_counter() - started)
    return min(found)
