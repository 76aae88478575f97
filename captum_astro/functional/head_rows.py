"""A row times each head's matrix, which is what most methods compute from an attention layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch

from captum_astro.functional.attention import Attention, attention_gradient, forbidden, widen
from captum_astro.functional.fused import Entry, fused_rows

Function = Entry | Literal["gain"]
# a row with as few entries is that of a class token
_SINGLE = 4


def head_rows(
    row: torch.Tensor, attention: Attention, entry: Function, gradient: torch.Tensor | None = None
) -> torch.Tensor:
    """A row times each head's matrix ``f(A, dA)``, with ``dA = dO V^T``: by a kernel where there is one.

    Args:
        row: Weights of the queries, ``(B, q)``, or of each head's, ``(B, H, q)``.
        attention: The layer.
        entry: ``f``: ``"attention"`` is ``A``, ``"flow"`` ``(A dA)^+``, ``"gain"`` ``A dA^+``, ``"rise"`` ``dA^+``,
            ``"size"`` ``|dA|`` and ``"square"`` ``dA^2``, the last three 0 where attention is forbidden.
        gradient: ``dO`` at the heads' outputs, ``(B, H, q, d_v)``, for entries with ``dA``.

    Returns:
        ``(B, H, n)``.
    """
    # one softmax is not negative, so that both products are the same; differential attention has no kernel
    found = fused_rows(row, attention, "flow" if entry == "gain" else entry, gradient)
    if found is not None:
        return found
    batch, heads, keys = attention.value.shape[:3]
    row = (row if row.ndim == 3 else row[:, None]).expand(-1, heads, -1)
    total = row.new_zeros(batch, heads, keys, dtype=widen(attention.value).dtype)
    for group, part in attention.groups():
        own, slopes = row[group], None if gradient is None else gradient[group]
        value = widen(part.value).contiguous()
        for queries, probabilities in _chunks(part, own):
            matrix = probabilities
            if slopes is not None:
                matrix = _entries(probabilities, attention_gradient(slopes[:, :, queries], value), entry)
            total[group] += (own[:, :, None, queries] @ matrix)[:, :, 0]
    return total


def _chunks(part: Attention, row: torch.Tensor) -> Iterator[tuple[slice | list[int], torch.Tensor]]:
    """The queries of a group that the row reads, a chunk at a time, and their attention."""
    if _on_host(row):  # otherwise a device would have to wait for what is read
        read: list[int] = row.any(0).any(0).nonzero().flatten().tolist()
        if len(read) <= _SINGLE:
            yield from [(read, part.at(read))] if read else []
            return
    yield from part.chunks()


def _on_host(tensor: torch.Tensor) -> bool:
    """Whether its values can be read at no cost."""
    return tensor.device.type == "cpu"


def _entries(probabilities: torch.Tensor, slopes: torch.Tensor, entry: Function) -> torch.Tensor:
    """``f(A, dA)``, in the memory of both."""
    if entry == "flow":
        return slopes.mul_(probabilities).clamp_(min=0)
    if entry == "gain":
        return slopes.clamp_(min=0).mul_(probabilities)
    if entry == "rise":
        slopes.clamp_(min=0)
    elif entry == "size":
        slopes.abs_()
    else:
        slopes.square_()
    return slopes.masked_fill_(forbidden(probabilities), 0)
