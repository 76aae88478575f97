"""Astromorphic attention as a sum over tokens: the effective attention on which explanations are based.

Without sigma the output is ``sum_j A_ij v_j`` with ``A_ij = phi(q_i) . (phi(k_j) + w_j) / (s C_i)``, where ``w_j`` is
the position's key (Eq. 12): attention with positive entries, whose rows do not sum to 1.

With sigma (Eq. 11 or 18) the memory is no longer a sum over tokens. Its secant through the origin makes it one again,
exactly, at the current point::

    sigma(h) = 1/2 + t(h) h,   t(h) = tanh(h / 2) / (2 h),   0 < t <= 1/4
    output_id = const_i + sum_j A_ij^(d) v_jd,   A_ij^(d) = sum_u phi(q_i)_u t(h_ud) (phi(k_j) + w_j)_u / (s C_i)

There is now one attention map per value channel d, because t depends on unit *and* channel. They cannot be replaced by
a single map per head with one vector per token: that would require t to be a product of something of u and something of
d. There are three exact readings:

- each (head, channel) is a head of its own, with a one-dimensional value: `EffectiveAttention.rows`;
- each (head, unit) is one, with the map ``phi(q_i)_u (phi(k_j) + w_j)_u / (s C_i)`` of rank one and the vector
  ``t(h_u) * v_j``. This excludes the causal form, where h, and therefore the vector, depends on the query;
- the contribution of each token to each output, ``A_ij^(d) v_jd``: `EffectiveAttention.contributions`.

``const_i = sum_u phi(q_i)_u / (2 C_i)``, divided by s with sigma outside: the same for all tokens and channels, the
output of an empty memory.

Because every ``A^(d)`` is positive, ``(dp/dA^(d) * A^(d))+`` is ``A^(d)`` times a sum of two products of a function of
i and one of j: `EffectiveAttention.pull` computes gradient-weighted methods in time linear in n.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from captum_astro.functional.astromorphic import Nonlinearity, check_options, gains
from captum_astro.functional.astromorphic_causal import (
    SIGMOID_CHUNK,
    causal_memory,
    in_chunks,
    memories,
    memory_before,
)
from captum_astro.functional.astromorphic_features import full_precision, normaliser, read_and_written
from captum_astro.functional.attention import widen


def secant(h: torch.Tensor) -> torch.Tensor:
    """``t(h) = (sigma(h) - 1/2) / h``, as ``tanh(h / 2) / (2 h)``, which avoids cancellation; 1/4 at 0.

    A constant in the backward pass, as it belongs to the point where it is taken.

    Args:
        h: Any shape.

    Returns:
        The same shape, above 0 and at most 1/4.

    Example:
        >>> secant(torch.tensor([0.0, 1e-30, 2.0]))
        tensor([0.2500, 0.2500, 0.1904])
    """
    h = h.detach()
    # exact to rounding: t = 1/4 - h^2 / 48 + ...
    small = h.abs() < 1e-8
    safe = torch.where(small, 1.0, h)
    return torch.where(small, 0.25, torch.tanh(safe / 2) / (2 * safe))


def memory_read(memory: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Each position's memory times its vector.

    Args:
        memory: ``(B, H, n, a, b)``, or ``(B, H, 1, a, b)`` for one memory.
        x: ``(B, H, n, b)``.

    Returns:
        ``(B, H, n, a)``.
    """
    if memory.shape[2] == 1:
        return x @ memory[:, :, 0].transpose(-2, -1)
    return (memory @ x[..., None]).squeeze(-1)


@dataclass(frozen=True)
class EffectiveAttention:
    """One astromorphic attention layer, stored as the inputs of its rows. See `effective_attention`.

    Attributes:
        read: ``phi(Q) / C``, including the factor after sigma, ``(B, H, n, m)``.
        keys: ``phi(K) + W_astro^T``, 0 for padding, ``(B, H, n, m)``.
        value: ``V``, ``(B, H, n, d_v)``.
        inner: The factor before sigma; None without sigma.
        causal: Whether query i sees only tokens up to i.
        slope: ``inner t(h)``, ``(B, H, m, d_v)``; None without sigma, or if it depends on the query (causal).
    """

    read: torch.Tensor
    keys: torch.Tensor
    value: torch.Tensor
    inner: float | None
    causal: bool
    slope: torch.Tensor | None

    @property
    def queries(self) -> int:
        """The number of rows."""
        return self.read.shape[2]

    @property
    def sums_to_one(self) -> bool:
        """False: C divides by the calcium response, not by the sum of the entries."""
        return False

    def prepared(self) -> EffectiveAttention:
        """Itself; its inputs need no other memory layout."""
        return self

    def selected(self, samples: slice, heads: slice) -> EffectiveAttention:
        """That of some samples and heads; each has all of its channels."""
        read, keys, value = (x[samples, heads] for x in (self.read, self.keys, self.value))
        slope = None if self.slope is None else self.slope[samples, heads]
        return replace(self, read=read, keys=keys, value=value, slope=slope)

    @property
    def per_channel(self) -> bool:
        """Whether each (head, value channel) is a separate head: true with sigma."""
        return self.inner is not None

    @property
    def constant(self) -> torch.Tensor:
        """The output without any token: ``(B, H, n, 1)``; 0 without sigma."""
        return self.read.sum(-1, keepdim=True) * (0.5 if self.per_channel else 0.0)

    @property
    def values(self) -> torch.Tensor:
        """The values that `rows` are multiplied by: ``(B, H, n, d_v)``, or ``(B, H d_v, n, 1)`` if `per_channel`."""
        return self.value.transpose(-2, -1).flatten(1, 2)[..., None] if self.per_channel else self.value

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """The attention of the queries from ``start`` to ``stop``: ``rows @ values + constant`` is the output.

        Returns:
            ``(B, H, stop - start, n)``, or ``(B, H d_v, stop - start, n)`` if `per_channel`; at least 0.
        """
        if not self.per_channel:
            return self._seen(self.read[:, :, start:stop] @ self.keys.transpose(-2, -1), start)
        reads = self._reads(start, stop).movedim(-1, 2)
        return self._seen(reads @ self.keys.transpose(-2, -1)[:, :, None], start).flatten(1, 2)

    def at(self, places: list[int]) -> torch.Tensor:
        """As `rows`, for single queries."""
        return torch.cat([self.rows(place, place + 1) for place in places], 2)

    def scores(self, start: int, stop: int) -> None:
        """None: its rows are no softmax."""

    def contributions(self, start: int, stop: int) -> torch.Tensor:
        """What each token adds to the output of some queries: ``(B, H, stop - start, n, d_v)``."""
        if not self.per_channel:
            return self.rows(start, stop)[..., None] * self.value[:, :, None]
        added = self.rows(start, stop) * self.values.transpose(-2, -1)
        split: torch.Tensor = added.unflatten(1, (self.value.shape[1], -1))
        return split.movedim(2, -1)

    def pull(self, weights: torch.Tensor) -> torch.Tensor:
        """``sum_i weights_id A_ij^(d)``: from the queries back to the tokens, in time and memory linear in n.

        Args:
            weights: ``(B, H, n, d)``; d is ``d_v`` if `per_channel`, any otherwise.

        Returns:
            ``(B, H, n, d)``, of the tokens.
        """
        weights = weights.to(self.read)
        if self.slope is not None:
            return self.keys @ (self.slope * (self.read.transpose(-2, -1) @ weights))
        if not self.causal:
            return self.keys @ (self.read.transpose(-2, -1) @ weights)
        if not self.per_channel:
            return causal_memory(self.keys.flip(2), self.read.flip(2), weights.flip(2), None, 1.0).flip(2)
        pulled = torch.empty_like(weights)
        for part, gathered, _ in self.walk(weights):
            pulled[:, :, part] = memory_read(gathered.transpose(-2, -1), self.keys[:, :, part])
        return pulled

    def walk(self, weights: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
        """The two sums over the memory at each position: of the queries that read there, and the tokens that wrote.

        Args:
            weights: ``(B, H, n, d_v)``, of the queries.

        Yields:
            Positions; for each as a token ``sum_i read_iu inner t(h_iud) weights_id`` over the queries that see it; for
            each as a query ``inner t(h_iud) sum_j keys_ju v_jd`` over the tokens it sees. Both
            ``(B, H, positions, m, d_v)``, or ``(B, H, 1, m, d_v)`` if all positions share one memory (not causal).
        """
        if not self.causal:
            gathered, memory = self.read.transpose(-2, -1) @ weights, self.keys.transpose(-2, -1) @ self.value
            slope = 1.0 if self.slope is None else self.slope
            yield slice(0, self.queries), (gathered * slope)[:, :, None], (memory * slope)[:, :, None]
            return
        chunk = min(SIGMOID_CHUNK, self.queries)
        read, keys, value, given = (in_chunks(x, chunk) for x in (self.read, self.keys, self.value, weights))
        before = memory_before(keys, value)
        after = torch.zeros_like(before[:, :, 0])
        for c in reversed(range(given.shape[2])):
            states = memories(keys[:, :, c], value[:, :, c], before[:, :, c])
            slope = self._slope(states) if self.per_channel else torch.ones_like(states)
            asked = read[:, :, c, :, :, None] * slope * given[:, :, c, :, None]
            later = asked.flip(2).cumsum(2).flip(2) + after[:, :, None]
            part = slice(c * chunk, min((c + 1) * chunk, self.queries))
            here = part.stop - part.start
            yield part, later[:, :, :here], (states * slope)[:, :, :here]
            after = later[:, :, 0]

    def _reads(self, start: int, stop: int) -> torch.Tensor:
        """``read_iu inner t(h_ud)``: ``(B, H, stop - start, m, d_v)``."""
        slope = self.slope
        if slope is None:
            before = self.keys[:, :, :start].transpose(-2, -1) @ self.value[:, :, :start]
            slope = self._slope(memories(self.keys[:, :, start:stop], self.value[:, :, start:stop], before))
        else:
            slope = slope[:, :, None]
        return self.read[:, :, start:stop, :, None] * slope

    def _slope(self, memory: torch.Tensor) -> torch.Tensor:
        assert self.inner is not None
        return self.inner * secant(self.inner * memory)

    def _seen(self, rows: torch.Tensor, start: int) -> torch.Tensor:
        return rows.tril(start) if self.causal else rows


def effective_attention(
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
) -> EffectiveAttention:
    """The attention that one call of `astromorphic_attention` is equivalent to; takes the same arguments.

    Args:
        query: ``(B, H, n, m)``.
        key: ``(B, H, n, m)``.
        value: ``(B, H, n, d_v)``.
        position: ``(H, n, m)`` or None.
        scale: ``s``.
        alpha: The exponent of the calcium response.
        nonlinearity: Where sigma is applied.
        causal: Whether position t sees only tokens up to t.
        mask: Bool ``(B, n)``, False for padding.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> q, k, v = torch.randn(3, 1, 2, 6, 4, dtype=torch.float64)
        >>> attention = effective_attention(q, k, v, scale=4.0)
        >>> attention.rows(0, 6).shape  # (1, heads x channels, 6, 6)
        torch.Size([1, 8, 6, 6])
        >>> from captum_astro.functional.astromorphic import astromorphic_attention
        >>> rebuilt = attention.contributions(0, 6).sum(3) + attention.constant
        >>> torch.allclose(rebuilt, astromorphic_attention(q, k, v, scale=4.0))
        True
    """
    check_options(scale, alpha, nonlinearity)
    inner, outer = gains(nonlinearity, scale)
    with full_precision(query.device):
        value = widen(value)
        read, written, keys = read_and_written(query, key, position, mask)
        read = read * (outer / normaliser(read, written, alpha, causal))
        slope = None
        if inner is not None and not causal:
            slope = inner * secant(inner * (keys.transpose(-2, -1) @ value))
        return EffectiveAttention(read, keys, value, inner, causal, slope)
