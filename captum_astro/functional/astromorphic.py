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

import contextlib
import math
from typing import Literal, get_args

import torch
from torch.overrides import handle_torch_function, has_torch_function

from captum_astro.functional.astromorphic_causal import causal_memory
from captum_astro.functional.attention import widen

Nonlinearity = Literal["inside", "outside", "none"]
"""Where sigma is applied: ``sigma(h / s)`` (Eq. 11), ``sigma(h) / s`` (Eq. 18), or nowhere (Algorithm 1)."""

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


def decayed(x: torch.Tensor, decay: float, chunk: int = 128) -> torch.Tensor:
    """``x P`` with ``P_ij = exp(-|i - j| / decay)``, in O(n chunk) time and without P.

    The kernel is a first-order recurrence, run from both ends: within chunks as a small product, and between chunks as
    the same recurrence over the chunk ends. Every exponent is negative, so nothing can overflow.

    Args:
        x: ``(..., n)``.
        decay: The distance over which the kernel falls by e, in tokens; above 0.
        chunk: The chunk length; the result does not depend on it.

    Returns:
        ``(..., n)``.

    Example:
        >>> decayed(torch.tensor([0.0, 0.0, 1.0, 0.0]), decay=1.0)
        tensor([0.1353, 0.3679, 1.0000, 0.3679])
    """
    return _from_left(x, 1 / decay, chunk) + _from_left(x.flip(-1), 1 / decay, chunk).flip(-1) - x


def _from_left(x: torch.Tensor, rate: float, chunk: int) -> torch.Tensor:
    """``y_i = sum over j <= i of exp(-rate (i - j)) x_j``."""
    length = x.shape[-1]
    chunk = max(2, min(chunk, length))
    split = torch.nn.functional.pad(x, (0, -length % chunk)).unflatten(-1, (-1, chunk))
    place = torch.arange(chunk, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-rate * (place[:, None] - place).clamp_min(0)).tril()
    within = split @ kernel.T
    if split.shape[-2] > 1:
        ends = _from_left(within[..., -1], rate * chunk, chunk)
        before = torch.nn.functional.pad(ends[..., :-1], (1, 0))
        within = within + before[..., None] * torch.exp(-rate * (place + 1))
    joined: torch.Tensor = within.flatten(-2)
    return joined[..., :length]


def position_keys(memory: torch.Tensor, tokens: int, decay: float) -> torch.Tensor:
    """``W_astro^T = phi(M^T M P M^T)``: the key under which the astrocyte writes each position (Eq. 12).

    Depends on parameters only, over all N positions of ``M``, so a shorter or causal sequence uses its first rows.

    Args:
        memory: ``M``, ``(H, m, N)``.
        tokens: The number of positions, at most N.
        decay: See `decayed`.

    Returns:
        ``(H, tokens, m)``, above 0; float32 for half precision. O(N m^2) time.

    Raises:
        ValueError: If there are fewer than ``tokens`` positions.

    Example:
        >>> position_keys(torch.zeros(2, 3, 5), tokens=4, decay=2.0).shape
        torch.Size([2, 4, 3])
    """
    if tokens > memory.shape[-1]:
        raise ValueError(f"There are positions for {memory.shape[-1]} tokens, not for {tokens}.")
    with full_precision(memory.device):
        memory = widen(memory)
        relative = decayed(memory, decay) @ memory.transpose(-2, -1)
        return feature_map(memory[..., :tokens].transpose(-2, -1) @ relative)


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
        read, written, keys = read_and_written(query, key, position, mask)
        if causal:
            mixed = causal_memory(read, keys, widen(value), *gains(nonlinearity, scale), chunk)
        else:
            inner, outer = gains(nonlinearity, scale)
            memory = keys.transpose(-2, -1) @ widen(value)
            mixed = read @ (memory * outer if inner is None else torch.sigmoid(memory * inner) * outer)
        return (mixed / normaliser(read, written, alpha, causal)).to(value.dtype)


def read_and_written(
    query: torch.Tensor, key: torch.Tensor, position: torch.Tensor | None, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """``phi(Q)``, ``phi(K)`` and ``phi(K) + W_astro^T``, each ``(B, H, n, m)``; the last two 0 for padding.

    The first two at least ``FLOOR`` elsewhere.
    """
    read, written = feature_map(query).clamp_min(FLOOR), feature_map(key).clamp_min(FLOOR)
    keys = written if position is None else written + widen(position)
    if mask is not None:
        kept = mask[:, None, :, None].to(written)
        written, keys = written * kept, keys * kept
    return read, written, keys


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


def full_precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Switch autocast off, if it exists for the device."""
    known = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if known else contextlib.nullcontext()
