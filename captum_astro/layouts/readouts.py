"""Read-outs of models without pooling layers of their own."""

from __future__ import annotations

import torch


def mean_of(tokens: int, chosen: slice) -> torch.Tensor:
    """The weights that average some of the final tokens.

    Args:
        tokens: The number of final tokens, ``n``.
        chosen: Those that are read: ``slice(1)`` is a class token, ``slice(1, None)`` all tokens after it.

    Returns:
        ``(n,)``, which sum to 1.

    Example:
        >>> mean_of(4, slice(2, None))
        tensor([0.0000, 0.0000, 0.5000, 0.5000], dtype=torch.float64)
    """
    weights = torch.zeros(tokens, dtype=torch.float64)
    weights[chosen] = 1
    return weights / weights.sum()
