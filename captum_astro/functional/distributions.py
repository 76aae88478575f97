"""Whether a model's outputs are probabilities already."""

from __future__ import annotations

import torch


def are_distributions(outputs: torch.Tensor) -> bool:
    """Whether every row is a distribution over two classes or more, as a softmax gives it, also in half precision.

    Args:
        outputs: ``(B, ..., classes)``.

    Example:
        >>> are_distributions(torch.tensor([[0.25, 0.75]])), are_distributions(torch.tensor([[0.5, 0.75]]))
        (True, False)
    """
    if outputs.ndim < 2 or outputs.shape[-1] < 2 or not outputs.numel():
        return False
    wide = outputs.detach().to(torch.float32)
    return bool((wide >= 0).all() & ((wide.sum(-1) - 1).abs() < 1e-2).all())
