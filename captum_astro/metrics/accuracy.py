"""Whether the model's top prediction is the true class."""

from __future__ import annotations

import torch

from captum_astro.metrics.declaration import Metric
from captum_astro.metrics.registry import register


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Top-1 accuracy of each image.

    Args:
        logits: ``(B, classes)``.
        labels: ``(B,)``.

    Returns:
        ``(B,)`` float64, 1 or 0.

    Example:
        >>> accuracy(torch.eye(3), torch.tensor([0, 1, 0]))
        tensor([1., 1., 0.], dtype=torch.float64)
    """
    return (logits.argmax(-1) == labels).double()


register(
    Metric(
        "accuracy",
        lambda given: accuracy(given.logits, given.labels),
        needs=("logits", "labels"),
        kind="model",
        percent=True,
        of_model=True,
        meaning="Share of the images whose most probable class is the true one.",
    )
)
