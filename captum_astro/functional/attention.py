"""Attention computed a few rows at a time, from the inputs of a fused kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import torch

# elements of one (B, heads, rows, n) chunk: large enough to keep a GPU busy, small enough for a laptop's memory
CHUNK_ELEMENTS = 1 << 21
# on the CPU: several tensors of this size fit into its cache; but products of fewer queries are slow
_CACHED_ELEMENTS, _QUERIES = 1 << 18, 64


class AttentionMap(Protocol):
    """A map ``(B, H, m, n)`` that is not stored, but computed a few rows at a time."""

    @property
    def queries(self) -> int:
        """The number of rows ``m``."""

    @property
    def sums_to_one(self) -> bool:
        """Whether every row is guaranteed to sum to 1."""

    def prepared(self) -> AttentionMap:
        """The same attention in a memory layout for many calls of `rows`."""

    def selected(self, samples: slice, heads: slice) -> AttentionMap:
        """That of some samples and heads."""

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """The rows from ``start`` to ``stop``: ``(B, H, stop - start, n)``, safe to modify."""

    def at(self, places: list[int]) -> torch.Tensor:
        """Single rows: ``(B, H, places, n)``."""

    def scores(self, start: int, stop: int) -> torch.Tensor | None:
        """What the rows are a softmax of, ``(B, H, stop - start, n)``, safe to modify; None if unknown."""


@dataclass(frozen=True)
class Softmax:
    """One softmax attention, stored as its inputs.

    Attributes:
        query: ``(B, H, m, d)``, after RoPE and normalisation.
        key: ``(B, H, n, d)``.
        scale: The factor before the softmax.
        bias: Added before the softmax, broadcast to ``(B, H, m, n)``; or bool, False where attention is masked.
        causal: Whether query i sees only keys up to i.
    """

    query: torch.Tensor
    key: torch.Tensor
    scale: float
    bias: torch.Tensor | None = None
    causal: bool = False

    def prepared(self) -> Softmax:
        """A copy with a contiguous key, for many products: a slice of a fused projection would be copied each time."""
        return replace(self, key=widen(self.key).contiguous())

    def selected(self, samples: slice, heads: slice) -> Softmax:
        """That of some samples and heads."""
        bias = self.bias
        if bias is not None:
            bias = bias[(None,) * (4 - bias.ndim)]
            bias = bias[samples if len(bias) > 1 else slice(None), heads if bias.shape[1] > 1 else slice(None)]
        return replace(self, query=self.query[samples, heads], key=self.key[samples, heads], bias=bias)

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """The attention of the queries from ``start`` to ``stop``: ``(B, H, stop - start, n)``; rows sum to 1, or 0."""
        return self._rows(slice(start, stop))

    def at(self, places: list[int]) -> torch.Tensor:
        """The attention of single queries: ``(B, H, places, n)``."""
        return self._rows(places)

    def _rows(self, chosen: slice | list[int]) -> torch.Tensor:
        probabilities = self._scores(chosen).softmax(-1)
        # a query that may attend to nothing outputs zero, as in the fused kernels
        return probabilities if self.bias is None else probabilities.nan_to_num_(0.0)

    def scores(self, start: int, stop: int) -> torch.Tensor:
        """The scores of these rows before the softmax: ``(B, H, stop - start, n)``; -inf where attention is masked."""
        return self._scores(slice(start, stop))

    def _scores(self, chosen: slice | list[int]) -> torch.Tensor:
        query = widen(self.query[:, :, chosen]).contiguous() * self.scale
        scores = query @ widen(self.key).contiguous().transpose(-2, -1)
        if self.bias is not None:
            bias = self.bias if self.bias.shape[-2] == 1 else self.bias[..., chosen, :]
            scores = scores.masked_fill_(~bias, -torch.inf) if bias.dtype == torch.bool else scores.add_(bias)
        if self.causal:
            queries, keys = (torch.arange(x.shape[2], device=x.device) for x in (self.query, self.key))
            scores.masked_fill_(keys > queries[chosen][:, None], -torch.inf)
        return scores

    @property
    def queries(self) -> int:
        """The number of rows ``m``."""
        return self.query.shape[2]

    @property
    def sums_to_one(self) -> bool:
        """Whether every row is guaranteed to sum to 1: no query is fully masked."""
        return self.bias is None


@dataclass(frozen=True)
class Given:
    """An attention map ``(B, H, m, n)`` that the model computed itself, and what it is a softmax of, if known."""

    attention: torch.Tensor
    logits: torch.Tensor | None = None

    def prepared(self) -> Given:
        """Itself; the map is stored."""
        return self

    def selected(self, samples: slice, heads: slice) -> Given:
        """That of some samples and heads."""
        logits = None if self.logits is None else self.logits[samples, heads]
        return Given(self.attention[samples, heads], logits)

    @property
    def queries(self) -> int:
        """The number of rows ``m``."""
        return self.attention.shape[2]

    @property
    def sums_to_one(self) -> bool:
        """False: unknown for a map that the model computed."""
        return False

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """The rows from ``start`` to ``stop``: ``(B, H, stop - start, n)``."""
        return widen(self.attention[:, :, start:stop].clone())

    def at(self, places: list[int]) -> torch.Tensor:
        """Single rows: ``(B, H, places, n)``."""
        return widen(self.attention[:, :, places])

    def scores(self, start: int, stop: int) -> torch.Tensor | None:
        """What the rows are a softmax of, ``(B, H, stop - start, n)``; None if unknown."""
        return None if self.logits is None else widen(self.logits[:, :, start:stop].clone())


@dataclass(frozen=True)
class Attention:
    """An attention layer: a weighted sum of maps, and the values that it mixes.

    Attributes:
        maps: One per softmax; differential attention has two.
        weights: The factor of each map.
        value: ``(B, H, n, d_v)``.
        constant: The part of the output that belongs to no token; broadcasts to ``(B, H, m, d_v)``.
    """

    maps: tuple[AttentionMap, ...]
    weights: tuple[float, ...]
    value: torch.Tensor
    constant: torch.Tensor | None = None

    @property
    def queries(self) -> int:
        """The number of rows ``m``."""
        return self.maps[0].queries

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """The rows of the summed map: ``(B, H, stop - start, n)``."""
        return self._summed([part.rows(start, stop) for part in self.maps])

    def at(self, places: list[int]) -> torch.Tensor:
        """Single rows of the summed map: ``(B, H, places, n)``."""
        return self._summed([part.at(places) for part in self.maps])

    def _summed(self, parts: list[torch.Tensor]) -> torch.Tensor:
        total = parts[0] if self.weights[0] == 1 else parts[0] * self.weights[0]
        for part, weight in zip(parts[1:], self.weights[1:], strict=True):
            total = total + weight * part
        return total

    def selected(self, samples: slice, heads: slice) -> Attention:
        """The layer of some samples and heads."""
        maps = tuple(part.selected(samples, heads) for part in self.maps)
        constant = self.constant
        if constant is not None:
            constant = constant.expand(*self.value.shape[:2], *constant.shape[-2:])[samples, heads]
        return replace(self, maps=maps, value=self.value[samples, heads], constant=constant)

    def groups(self) -> Iterator[tuple[tuple[slice, slice], Attention]]:
        """The layer in parts that fit into a cache, or of one head: slices of the samples and the heads, and the part.

        Only the heads of softmaxes and of stored maps are computed apart.
        """
        batch, heads, keys = self.value.shape[0], self.value.shape[1], self.value.shape[2]
        together = max(1, self._at_once // max(1, self.queries * keys))
        apart = all(isinstance(part, Softmax | Given) for part in self.maps)
        step, samples = min(together, heads) if apart else heads, max(1, together // heads)
        for start in range(0, batch, samples):
            for head in range(0, heads, step):
                group = slice(start, start + samples), slice(head, head + step)
                yield group, self.selected(*group)

    @property
    def _at_once(self) -> int:
        """The elements of a chunk."""
        return min(CHUNK_ELEMENTS, _CACHED_ELEMENTS) if self.value.device.type == "cpu" else CHUNK_ELEMENTS

    def chunks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """All rows in order, a chunk at a time: the slice of queries, and ``(B, H, rows, n)``, safe to modify."""
        batch, heads, keys = self.value.shape[0], self.value.shape[1], self.value.shape[2]
        row = max(1, batch * heads * keys)
        step = max(1, self._at_once // row, min(_QUERIES, CHUNK_ELEMENTS // row))
        ready = replace(self, maps=tuple(part.prepared() for part in self.maps))
        for start in range(0, self.queries, step):
            stop = min(start + step, self.queries)
            yield slice(start, stop), ready.rows(start, stop)


def attention_gradient(output_gradient: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The gradient of some rows of an attention map from the gradient at the heads' outputs.

    Because ``O = A V``, ``dp/dA = dp/dO V^T``: exact, and attention stays fused.

    Args:
        output_gradient: ``dp/dO`` of these rows, ``(B, H, rows, d_v)``.
        value: ``(B, H, n, d_v)``.

    Returns:
        ``(B, H, rows, n)``.
    """
    return widen(output_gradient) @ widen(value).transpose(-2, -1)


def forbidden(rows: torch.Tensor) -> torch.Tensor:
    """Where rows of a map have no attention: models forbid it by adding -inf or -100 before the softmax."""
    return rows.abs() < torch.finfo(torch.float32).tiny


def widen(tensor: torch.Tensor) -> torch.Tensor:
    """Convert half precision to float32, in which relevance is accumulated; other dtypes are unchanged."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
