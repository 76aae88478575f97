"""The features of astromorphic attention: how a key writes, how a query reads, and what divides the result.

Equation numbers are those of `captum_astro.functional.astromorphic`.
"""

from __future__ import annotations

import contextlib
import math

import torch

from captum_astro.functional.attention import widen

# phi(q) and phi(k) are kept above exp(-20) = 2.1e-9, so that C is never 0; float32 rounds elu(x) + 1 by 30 times that
FLOOR = math.exp(-20.0)


def feature_map(x: torch.Tensor) -> torch.Tensor:
    """``phi(x) = elu(x) + 1`` (Eq. 4), without cancellation: below 0 it is ``exp(x)``, which ``elu(x) + 1`` loses.

    Args:
        x: Any shape.

    Returns:
        The same shape, of ``x``'s dtype; float32 for half precision.

    Example:
        >>> feature_map(torch.tensor([-20.0, 0.0, 2.0]))
        tensor([2.0612e-09, 1.0000e+00, 3.0000e+00])
    """
    x = widen(x)
    # not clamp(max=0), whose slope at 0 is 0: a token of zeros would not learn
    return x.masked_fill(x > 0, 0).exp() + x.relu()


def slope(features: torch.Tensor) -> torch.Tensor:
    """The derivative of `feature_map`, from its own values: 1 above 0, and ``exp(x)``, which it is itself, below.

    Args:
        features: What `feature_map` returned, any shape.

    Returns:
        The same shape.

    Example:
        >>> slope(feature_map(torch.tensor([-1.0, 0.0, 2.0])))
        tensor([0.3679, 1.0000, 1.0000])
    """
    return features.clamp_max(1)


def read_and_written(
    query: torch.Tensor, key: torch.Tensor, position: torch.Tensor | None, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``phi(Q)``, ``phi(K)`` and ``phi(K) + W_astro^T``, each ``(B, H, n, m)``; the last two 0 for padding.

    The first two at least ``FLOOR`` elsewhere.
    """
    return feature_map(query).clamp_min(FLOOR), *written_keys(key, position, mask)


def written_keys(
    key: torch.Tensor, position: torch.Tensor | None, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """``phi(K)`` and ``phi(K) + W_astro^T``, as in `read_and_written`."""
    written = feature_map(key).clamp_min(FLOOR)
    keys = written if position is None else written + widen(position)
    if mask is not None:
        kept = mask[:, None, :, None].to(written)
        written, keys = written * kept, keys * kept
    return written, keys


def normaliser(read: torch.Tensor, written: torch.Tensor, alpha: float, causal: bool = False) -> torch.Tensor:
    """``C = phi(Q) g^T`` with ``g = (sum_t phi(k_t))^alpha`` (Eq. 14, 15), never 0.

    As both are at least ``FLOOR``, ``C >= m FLOOR (t FLOOR)^alpha`` where t tokens are seen: at least ``1.3e-11 m`` for
    alpha 0.25 and ``4.2e-18 m`` for alpha 1, far inside float32 and bfloat16, as is its inverse's square. Nothing is
    added to C. A query that sees no token (only padding) has the bound with t = 1.

    Args:
        read: ``phi(Q)``, ``(B, H, n, m)``.
        written: ``phi(K)``, ``(B, H, n, m)``, 0 for padding.
        alpha: The exponent.
        causal: Whether query i sees only tokens up to i.

    Returns:
        ``(B, H, n, 1)``.
    """
    total = written.cumsum(-2) if causal else written.sum(-2, keepdim=True)
    # a token's total is at least the floor: this matters for pure padding, where the power has no finite slope
    calcium = total.clamp_min(FLOOR) ** alpha
    return (read * calcium).sum(-1, keepdim=True)


def chunks(x: torch.Tensor, tokens: int) -> list[slice]:
    """Parts of a sequence: short enough for the cache of a core, or long enough to keep a GPU busy.

    Args:
        x: A tensor on the device where they are computed.
        tokens: The length of the sequence.

    Example:
        >>> chunks(torch.zeros(1), 100)
        [slice(0, 96, None), slice(96, 100, None)]
    """
    step = 96 if x.device.type == "cpu" else 2048
    return [slice(start, min(start + step, tokens)) for start in range(0, tokens, step)]


def full_precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Switch autocast off, if it exists for the device."""
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else contextlib.nullcontext()
