"""Astromorphic attention whose queries all read one memory, with a backward pass that recomputes what it needs.

Kept from the forward pass are its inputs, the ``m x d_v`` memory and the m totals of the keys. Features, keys and
normalisers, which have as many numbers as the inputs, are formed again for a chunk of tokens at a time: then a training
step needs hardly more memory than its inputs and their gradients, and is no slower, because chunks stay in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import compress
from typing import Any

import torch

from captum_astro.functional.astromorphic_features import (
    FLOOR,
    chunks,
    feature_map,
    normaliser,
    read_and_written,
    slope,
    written_keys,
)
from captum_astro.functional.attention import widen


@dataclass(frozen=True)
class Reading:
    """How a memory is read: ``outer f(inner H)``, f the sigmoid, or the identity if ``inner`` is None; and alpha."""

    inner: float | None
    outer: float
    alpha: float

    def read(self, memory: torch.Tensor) -> torch.Tensor:
        """What the queries are multiplied with."""
        return memory * self.outer if self.inner is None else torch.sigmoid(memory * self.inner) * self.outer

    def slope(self, memory: torch.Tensor) -> torch.Tensor | float:
        """The derivative of `read`."""
        if self.inner is None:
            return self.outer
        sigma = torch.sigmoid(memory * self.inner)
        return sigma * (1 - sigma) * (self.inner * self.outer)


def read_memory(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    position: torch.Tensor | None,
    mask: torch.Tensor | None,
    reading: Reading,
) -> torch.Tensor:
    """The attention without a causal order; see `captum_astro.functional.astromorphic.astromorphic_attention`.

    Args:
        query: ``(B, H, n, m)``.
        key: ``(B, H, n, m)``.
        value: ``(B, H, n, d_v)``.
        position: ``(H, n, m)`` or None.
        mask: Bool ``(B, n)``, False for padding, or None.
        reading: How the memory is read.

    Returns:
        ``(B, H, n, d_v)``, of ``value``'s dtype.

    Example:
        >>> ones = torch.ones(1, 1, 3, 2)
        >>> read_memory(ones, ones, ones, None, None, Reading(None, 1.0, 1.0)).unique()
        tensor([1.])
    """
    given = (query, key, value, position)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in given):
        output: torch.Tensor = _Recomputed.apply(*given, mask, reading)[0]
        return output
    return _at_once(*given, mask, reading)


def _at_once(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    position: torch.Tensor | None,
    mask: torch.Tensor | None,
    reading: Reading,
) -> torch.Tensor:
    read, written, keys = read_and_written(query, key, position, mask)
    mixed = read @ reading.read(keys.transpose(-2, -1) @ widen(value))
    return (mixed / normaliser(read, written, reading.alpha)).to(value.dtype)


class _Recomputed(torch.autograd.Function):
    """`_at_once` in chunks, which also returns the memory and the keys' totals."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        position: torch.Tensor | None,
        mask: torch.Tensor | None,
        reading: Reading,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        memory: Any = None
        total, output = memory, memory
        for part in chunks(key, key.shape[-2]):
            written, keys = _written(key, position, mask, part)
            memory = _sum(memory, keys.transpose(-2, -1) @ widen(value[..., part, :]))
            total = _sum(total, written.sum(-2, keepdim=True))
        matrix, calcium = reading.read(memory), total.clamp_min(FLOOR) ** reading.alpha
        for part in chunks(query, query.shape[-2]):
            read = feature_map(query[..., part, :]).clamp_min(FLOOR)
            mixed = read @ matrix / (read * calcium).sum(-1, keepdim=True)
            output = _put(output, mixed.to(value.dtype), part, query.shape[-2])
        return output, memory, total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
        *tensors, ctx.reading = inputs
        _, memory, total = output
        ctx.mark_non_differentiable(memory, total)
        ctx.save_for_backward(*tensors, memory, total)
        ctx.save_for_forward(*tensors, memory, total)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, *_: Any) -> Any:
        *given, mask, memory, total = ctx.saved_tensors
        reading: Reading = ctx.reading
        if torch.is_grad_enabled():  # a gradient of this gradient is wanted: let autograd see each step
            return *_pulled(given, mask, reading)(gradient), None, None
        query, key, value, position = given
        calcium, matrix = total.clamp_min(FLOOR) ** reading.alpha, reading.read(memory).transpose(-2, -1)
        to_query: Any = None
        to_key = to_value = to_position = to_memory = to_calcium = to_query
        for part in chunks(query, query.shape[-2]):
            features = feature_map(query[..., part, :])
            read = features.clamp_min(FLOOR)
            norm = (read * calcium).sum(-1, keepdim=True)
            share = widen(gradient[..., part, :]) / norm
            to_read = share @ matrix
            to_norm = -(to_read * read).sum(-1, keepdim=True) / norm
            to_memory = _sum(to_memory, read.transpose(-2, -1) @ share)
            to_calcium = _sum(to_calcium, (read * to_norm).sum(-2, keepdim=True))
            to_query = _put(
                to_query, _below(features, to_read + to_norm * calcium).to(query.dtype), part, query.shape[-2]
            )
        to_memory = to_memory * reading.slope(memory)
        to_total = to_calcium * reading.alpha * total.clamp_min(FLOOR) ** (reading.alpha - 1)
        to_total = to_total.masked_fill(total < FLOOR, 0)
        for part in chunks(key, key.shape[-2]):
            features = feature_map(key[..., part, :])
            keys = features.clamp_min(FLOOR) if position is None else features.clamp_min(FLOOR) + position[..., part, :]
            if mask is not None:
                keys = keys * mask[:, None, part, None]
            to_value = _put(to_value, (keys @ to_memory).to(value.dtype), part, key.shape[-2])
            del keys
            to_keys = widen(value[..., part, :]) @ to_memory.transpose(-2, -1)
            if mask is not None:
                to_keys = to_keys * mask[:, None, part, None]
            if position is not None:
                to_position = _put(to_position, to_keys.sum(0).to(position.dtype), part, key.shape[-2])
            to_keys = to_keys + (to_total if mask is None else to_total * mask[:, None, part, None])
            to_key = _put(to_key, _below(features, to_keys).to(key.dtype), part, key.shape[-2])
        return to_query, to_key, to_value, to_position, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: torch.Tensor | None) -> Any:
        """The transpose of the transpose."""
        *given, mask, _, _ = ctx.saved_tensors
        pull, present = _pulled(given, mask, ctx.reading), [x is not None for x in given]
        push = torch.func.vjp(lambda x: tuple(compress(pull(x), present)), torch.zeros_like(given[2]))[1]
        moved = [
            torch.zeros_like(x) if t is None else t for x, t in zip(given, tangents, strict=False) if x is not None
        ]
        return push(tuple(moved))[0], None, None


def _pulled(given: list[Any], mask: torch.Tensor | None, reading: Reading) -> Callable[[torch.Tensor], tuple[Any, ...]]:
    """From the gradient of the output to those of query, key, value and position (None without), by autograd."""
    query, key, value, position = given
    if position is None:
        pull = torch.func.vjp(lambda q, k, v: _at_once(q, k, v, None, mask, reading), query, key, value)[1]
        return lambda gradient: (*pull(gradient), None)
    pull = torch.func.vjp(lambda q, k, v, p: _at_once(q, k, v, p, mask, reading), query, key, value, position)[1]
    return lambda gradient: tuple(pull(gradient))


def _written(
    key: torch.Tensor, position: torch.Tensor | None, mask: torch.Tensor | None, part: slice
) -> tuple[torch.Tensor, torch.Tensor]:
    return written_keys(
        key[..., part, :],
        None if position is None else position[..., part, :],
        None if mask is None else mask[:, part],
    )


def _below(features: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """The gradient before `feature_map` and the floor."""
    return gradient * slope(features).masked_fill(features < FLOOR, 0)


def _sum(total: torch.Tensor | None, more: torch.Tensor) -> torch.Tensor:
    return more if total is None else total + more


def _put(whole: torch.Tensor | None, part: torch.Tensor, at: slice, tokens: int) -> torch.Tensor:
    """Write a chunk into the tensor of all, which the first one makes; `torch.cat` would need twice the memory."""
    if whole is None:
        whole = part.new_empty(*part.shape[:-2], tokens, part.shape[-1])
    whole[..., at, :] = part
    return whole
