"""Attention computed a few rows at a time, from the inputs of a fused kernel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch

# elements of one (B, heads, rows, n) chunk: large enough to keep a GPU busy, small enough for a laptop's cache
CHUNK_ELEMENTS = 1 << 21


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


class FusedCall(NamedTuple):
    """The arguments of one ``F.scaled_dot_product_attention``, with keys and values expanded per head."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    bias: torch.Tensor | None
    dropout: float
    causal: bool
    scale: float

    @classmethod
    def of(
        cls,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> FusedCall:
        """Has the signature of that function."""
        if enable_gqa:
            key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        key, value = (x.expand(*query.shape[:-2], *x.shape[-2:]) for x in (key, value))  # multi-query: one for all
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        bias = None if attn_mask is None else attn_mask.detach()
        return cls(query, key, value, bias, dropout_p, is_causal, scale)

    @property
    def map(self) -> Softmax:
        """The attention map, without a graph."""
        return Softmax(self.query.detach(), self.key.detach(), self.scale, self.bias, self.causal)


@dataclass(frozen=True)
class Given:
    """An attention map ``(B, H, m, n)`` that the model computed itself, and what it is a softmax of, if known."""

    attention: torch.Tensor
    logits: torch.Tensor | None = None

    def prepared(self) -> Given:
        """Itself; the map is stored."""
        return self

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

    def chunks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """All rows in order, a chunk at a time: the slice of queries, and ``(B, H, rows, n)``, safe to modify."""
        batch, heads, keys = self.value.shape[0], self.value.shape[1], self.value.shape[2]
        step = max(1, CHUNK_ELEMENTS // max(1, batch * heads * keys))
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
