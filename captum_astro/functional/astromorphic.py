"""Astromorphic attention: a memory written by synapses and astrocytes and read by the queries, linear in length.

Source: "Delving Deeper Into Astromorphic Transformers" (arXiv 2312.10925; IEEE TCDS 2025). Equation numbers are the
paper's. For each head, with n tokens, m hidden (presynaptic) units, ``d_v`` value channels, ``phi(x) = elu(x) + 1``::

    H_neuron = phi(K)^T V / s          Hebbian plasticity (Eq. 9)
    H_astro  = W_astro V / s           with W_astro = phi(a)^T,  a = M^T (M P M^T)  (Eq. 10, 12),
                                       P_ij = exp(-|i - j| / decay), for which the paper gives no formula
    H = sigma(H_neuron + H_astro)      (Eq. 11; the paper has three versions of it, see `Nonlinearity`)
    g = (sum_t phi(k_t))^alpha         presynaptic plasticity, the calcium response (Eq. 14)
    C = phi(Q) g^T                     (Eq. 15)
    output = phi(Q) H / C              (Eq. 16, 17, without the residual add)

The two memories are one product, ``H = sigma((phi(K) + phi(a))^T V / s)``: each token is written under its key *and*
under its position. No n x n matrix is built, in the forward or the backward pass.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch.overrides import handle_torch_function, has_torch_function

from captum_astro.functional.astromorphic_causal import causal_memory
from captum_astro.functional.astromorphic_features import full_precision, normaliser, read_and_written
from captum_astro.functional.astromorphic_memory import Reading, read_memory
from captum_astro.functional.attention import widen

Nonlinearity = Literal["inside", "outside", "none"]
"""Where sigma is applied: ``sigma(h / s)`` (Eq. 11), ``sigma(h) / s`` (Eq. 18), or nowhere (Algorithm 1)."""


def astromorphic_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    position: torch.Tensor | None = None,
    *,
    scale: float,
    alpha: float = 0.25,
    nonlinearity: Nonlinearity = "inside",
    causal: bool = False,
    mask: torch.Tensor | None = None,
    chunk: int | None = None,
) -> torch.Tensor:
    """``phi(Q) H / C`` for every head (Eq. 8 to 17), in time and memory linear in n.

    Function modes see it as one operation, like ``F.scaled_dot_product_attention``. Half precision is computed in
    float32, also under autocast.

    The backward pass recomputes features, keys and normalisers for a chunk of tokens at a time instead of keeping them.

    Time is ``O(n m d_v)``, with one exception in the constant: in the causal form with a sigma, each position has its
    own ``m x d_v`` memory to pass through sigma, so the ``n m d_v`` steps are exponentials instead of products. Those
    memories are kept for a few chunks at a time and recomputed in the backward pass.

    Args:
        query: ``Q``, ``(B, H, n, m)``.
        key: ``K``, ``(B, H, n, m)``.
        value: ``V``, ``(B, H, n, d_v)``.
        position: From `position_keys`, ``(H, n, m)``; None without relative positions.
        scale: ``s``, above 0.
        alpha: The exponent of the calcium response; 1 is the linear form.
        nonlinearity: Where sigma is applied, see `Nonlinearity`.
        causal: Whether position t sees only tokens up to t: ``H``, ``g`` and ``C`` are prefix sums.
        mask: Bool ``(B, n)``, False for padding, which is never written. A padded query still gets an output.
        chunk: Length of the chunks of the causal form; the result does not depend on it.

    Returns:
        ``(B, H, n, d_v)``, of ``value``'s dtype.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> q, k, v = torch.randn(3, 2, 4, 10, 8)
        >>> astromorphic_attention(q, k, v, scale=8.0).shape
        torch.Size([2, 4, 10, 8])
    """
    given = (query, key, value) if position is None else (query, key, value, position)
    if has_torch_function(given):
        result: torch.Tensor = handle_torch_function(
            astromorphic_attention, given, query, key, value, position, scale=scale, alpha=alpha,
            nonlinearity=nonlinearity, causal=causal, mask=mask, chunk=chunk,
        )  # fmt: skip
        return result
    check_options(scale, alpha, nonlinearity)
    with full_precision(query.device):
        inner, outer = gains(nonlinearity, scale)
        if not causal:
            return read_memory(query, key, value, position, mask, Reading(inner, outer, alpha))
        read, written, keys = read_and_written(query, key, position, mask)
        mixed = causal_memory(read, keys, widen(value), inner, outer, chunk)
        return (mixed / normaliser(read, written, alpha, causal=True)).to(value.dtype)


def gains(nonlinearity: Nonlinearity, scale: float) -> tuple[float | None, float]:
    """The factor before sigma (None: there is no sigma) and the factor after it."""
    return {"inside": (1 / scale, 1.0), "outside": (1.0, 1 / scale), "none": (None, 1 / scale)}[nonlinearity]


def check_options(scale: float, alpha: float, nonlinearity: str) -> None:
    """Reject invalid options.

    Raises:
        ValueError: With the option, its range and the given value.
    """
    if not 0 < scale < math.inf:
        raise ValueError(f"scale must be above 0 and finite, not {scale!r}.")
    if not 0 <= alpha < math.inf:
        raise ValueError(f"alpha must be at least 0 and finite, not {alpha!r}.")
    if nonlinearity not in get_args(Nonlinearity):
        raise ValueError(f"nonlinearity must be one of {', '.join(get_args(Nonlinearity))}, not {nonlinearity!r}.")
