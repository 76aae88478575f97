"""The keys under which astrocytes write positions (Eq. 12): products with an exponential kernel that is never formed.

Equation numbers are those of `captum_astro.functional.astromorphic`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from captum_astro.functional.astromorphic_features import chunks, feature_map, full_precision, slope
from captum_astro.functional.attention import widen


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


def decayed_parts(x: torch.Tensor, decay: float) -> Iterator[tuple[slice, torch.Tensor]]:
    """`decayed`, a part of the columns at a time, so that the whole is never held.

    Args:
        x: ``(..., n)``.
        decay: See `decayed`.

    Yields:
        Columns, and ``x P`` there; float32 for half precision.

    Example:
        >>> [(part, product.shape) for part, product in decayed_parts(torch.ones(2, 100), 4.0)]
        [(slice(0, 96, None), torch.Size([2, 96])), (slice(96, 100, None), torch.Size([2, 4]))]
    """
    parts = chunks(x, x.shape[-1])
    place = torch.arange(parts[0].stop + 1, device=x.device, dtype=widen(x[..., :1]).dtype)
    fall = torch.exp(-place / decay)
    near = torch.exp(-(place[1:, None] - place[1:]).abs() / decay)
    # what all before a part, and all after it, come to at the nearest position outside it
    before, after = ([torch.zeros_like(widen(x[..., 0]))] for _ in range(2))
    for part in parts[:-1]:
        before.append(before[-1] * fall[-1] + widen(x[..., part]) @ fall[:-1].flip(0))
    for part in reversed(parts[1:]):
        size = part.stop - part.start
        after.append(after[-1] * fall[size] + widen(x[..., part]) @ fall[:size])
    for part, left, right in zip(parts, before, reversed(after), strict=True):
        size = part.stop - part.start
        reach = fall[1 : size + 1]
        far = left[..., None] * reach + right[..., None] * reach.flip(0)
        yield part, widen(x[..., part]) @ near[:size, :size] + far


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
        if torch.is_grad_enabled() and memory.requires_grad:
            keys: torch.Tensor = _Recomputed.apply(memory, tokens, decay)[0]
            return keys
        return _at_once(memory, tokens, decay)


def _at_once(memory: torch.Tensor, tokens: int, decay: float) -> torch.Tensor:
    memory = widen(memory)
    relative = decayed(memory, decay) @ memory.transpose(-2, -1)
    return feature_map(memory[..., :tokens].transpose(-2, -1) @ relative)


class _Recomputed(torch.autograd.Function):
    """`_at_once`, and ``D = M P M^T``, which the backward pass is given; it forms the rest again in parts."""

    generate_vmap_rule = True

    @staticmethod
    def forward(memory: torch.Tensor, tokens: int, decay: float) -> tuple[torch.Tensor, torch.Tensor]:
        relative: Any = None
        for part, near in decayed_parts(memory, decay):
            more = near @ widen(memory[..., part]).transpose(-2, -1)
            relative = more if relative is None else relative + more
        keys: Any = None
        for part in chunks(memory, tokens):
            written = feature_map(widen(memory[..., part]).transpose(-2, -1) @ relative)
            keys = written.new_empty(len(memory), tokens, memory.shape[1]) if keys is None else keys
            keys[:, part] = written
        return keys, relative

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
        memory, ctx.tokens, ctx.decay = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(memory, output[1])
        ctx.save_for_forward(memory, output[1])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, *_: Any) -> Any:
        memory, relative = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted: let autograd see each step
            pull = torch.func.vjp(lambda x: _at_once(x, ctx.tokens, ctx.decay), memory)[1]
            return pull(gradient)[0], None, None
        to_memory: Any = None
        to_relative = to_memory
        for part in chunks(memory, ctx.tokens):
            here = widen(memory[..., part])
            to_inner = gradient[:, part] * slope(feature_map(here.transpose(-2, -1) @ relative))
            more = here @ to_inner
            to_relative = more if to_relative is None else to_relative + more
            to_memory = more.new_zeros(memory.shape) if to_memory is None else to_memory
            to_memory[..., part] = relative @ to_inner.transpose(-2, -1)
        both = to_relative + to_relative.transpose(-2, -1)  # M is in D twice
        for part, near in decayed_parts(memory, ctx.decay):
            to_memory[..., part] += both @ near
        return to_memory.to(memory.dtype), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor, *_: Any) -> Any:
        """The transpose of the transpose."""
        memory, relative = ctx.saved_tensors
        pull = torch.func.vjp(lambda x: _at_once(x, ctx.tokens, ctx.decay), memory)[1]
        push = torch.func.vjp(lambda x: pull(x)[0], relative.new_zeros(len(memory), ctx.tokens, memory.shape[1]))[1]
        return push(tangent)[0], None
