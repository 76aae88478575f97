"""The identity check: what was captured must rebuild what the model computed."""

from __future__ import annotations

import torch

from captum_astro.capture.modes import draws
from captum_astro.capture.records import AttentionRecord, StageRecord, spots
from captum_astro.functional.attention import widen
from captum_astro.layouts.base import Layout

# how far a rebuilt row may be off, relative to what the stage adds, before the layout is said to be wrong
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-2}
_LOW_PRECISION_TOLERANCE = 0.25


def rebuilt_attention(record: AttentionRecord, rows: slice) -> torch.Tensor:
    """``sum_h A_h E~_h + bias`` for some queries, straight from the definition: ``(B, rows, d)``."""
    attention = record.attention
    start, stop, _ = rows.indices(attention.queries)
    out = record.map_out()
    mixed = attention.rows(start, stop) @ widen(attention.value)
    if attention.constant is not None:
        mixed = mixed + attention.constant[:, :, start:stop]
    if out.query_scale is not None:
        mixed = mixed * out.query_scale[:, :, start:stop, None]
    added = mixed.transpose(1, 2).flatten(2)
    added = added if out.matrix is None else added @ out.matrix
    if out.constant is None:
        return added
    return added + (out.constant[:, start:stop] if out.constant.ndim == 3 else out.constant)


def rebuilt(record: StageRecord, rows: slice) -> torch.Tensor:
    """What the captured branches of a stage add to some tokens: ``(B, rows, d)``."""
    parts = [
        rebuilt_attention(branch, rows) if isinstance(branch, AttentionRecord) else widen(branch.output[:, rows])
        for branch in record.branches
    ]
    return torch.stack(parts).sum(0)


def identity_error(record: StageRecord, rows: slice = slice(None)) -> torch.Tensor:
    """The largest ``|E_next - E - sum of the branches|``, relative to the largest entry of what is added.

    A difference within the rounding of ``E`` itself, beside which LayerScale may make a branch tiny, is
    given relative to ``E``: nothing more can be told from ``E_next - E``.

    Args:
        record: The stage.
        rows: The tokens to compare.

    Returns:
        A scalar tensor.
    """
    following = record.following if record.summed is None else record.summed
    stream, following = widen(record.stream[:, rows]), widen(following[:, rows])
    return _relative(following - stream, rebuilt(record, rows), stream, record.stream.dtype)


def _relative(found: torch.Tensor, expected: torch.Tensor, stream: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    difference = (found - expected).abs().amax()
    size = torch.maximum(stream.abs().amax(), expected.abs().amax())
    rounding = 4 * torch.finfo(dtype).eps * size
    return difference / torch.where(difference <= rounding, size, expected.abs().amax())


def value_error(record: AttentionRecord) -> torch.Tensor:
    """How far the captured values are from ``W_V x + constant``, which `AttentionBranch.value_weight` says they are."""
    value = widen(record.attention.value)
    if record.read is None:
        return value.new_zeros(())
    weight = record.value_weight().to(value)
    read, where = widen(record.read), spots(value.shape[2])
    found = value[:, :, where]
    if record.values is not None:
        read = read * record.values.factors[:, None]
        if record.values.shift is not None:
            found = found - record.values.shift[:, None, where, None]
        found = found / record.values.scale[:, None, where, None]
    expected = torch.einsum("bnd,hvd->bhnv", read, weight)
    rounding = (
        4 * torch.finfo(record.attention.value.dtype).eps * torch.maximum(found.abs().amax(), expected.abs().amax())
    )
    expected, found = (x - x[:, :, :1] for x in (expected, found))  # without the constant
    error = (found - expected).abs().amax() / expected.abs().amax().clamp(min=torch.finfo(value.dtype).tiny)
    # tokens that are all alike, as of a blank image without positions, leave nothing to compare
    alike = torch.maximum(found.abs().amax(), expected.abs().amax()) <= rounding
    return torch.where(alike, 0.0, error)


class SpotCheck:
    """A few rows of every stage are rebuilt in every pass, so that a wrong layout never gives a map in silence.

    Attention is rebuilt for three tokens, feed-forward layers for all; the values are compared with their weight, and
    the pooled vector with the read-out. Costs O(n d) a layer. Nothing is compared while dropout is active.

    Args:
        layout: Of the model that is explained.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._random = draws(layout.model)
        self._errors: list[tuple[str, torch.Tensor, float]] = []
        self._read: torch.Tensor | None = None
        self._reached: torch.Tensor | None = None

    def stage(self, record: StageRecord) -> None:
        """Compare some tokens of a stage."""
        heads = [branch for branch in record.branches if isinstance(branch, AttentionRecord)]
        name = " + ".join(branch.branch.name for branch in record.branches)
        if not heads:
            self._note(name, identity_error(record), record.stream.dtype)
            return
        lowest = _lowest(record.stream.dtype, *(head.attention.value.dtype for head in heads))
        for token in spots(record.stream.shape[1]):
            self._note(name, identity_error(record, slice(token, token + 1)), lowest)
        for head in heads:
            self._note(f"The value projection of {head.branch.name}", value_error(head), lowest)

    def readout(
        self,
        weights: torch.Tensor,
        final: torch.Tensor,
        pooling: AttentionRecord | None,
        seen: dict[str, torch.Tensor],
    ) -> None:
        """Compare the pooled vector with what the layout says it is, and note which final tokens are read.

        Args:
            weights: The read-out over the final tokens, or over the queries of a pooling head, ``(B, n)``.
            final: The final stream, ``(B, n, d)``.
            pooling: What was captured of a pooling head.
            seen: The final tokens after the last norm, and the pooled vector, where the layout has taps for them.
        """
        if pooling is not None:
            assert self._layout.pooling is not None
            first = self._layout.pooling.first_token
            self._read = (torch.arange(final.shape[1], device=final.device) >= first).expand(len(final), -1)
            lowest, name = _lowest(final.dtype, pooling.attention.value.dtype), pooling.branch.name
            self._note(f"The value projection of {name}", value_error(pooling), lowest)
            if "pooled" in seen:
                added, found = rebuilt_attention(pooling, slice(None)), widen(seen["pooled"])
                self._note(name, _relative(found, added, added, lowest), lowest)
            return
        self._read = weights != 0
        if {"normalised", "pooled"} <= set(seen):
            normalised, found = widen(seen["normalised"]), widen(seen["pooled"])
            expected = torch.einsum("bn,bnd->bd", weights.to(normalised), normalised)
            if found.shape == expected.shape:
                self._note("The pooled vector", _relative(found, expected, expected, final.dtype), final.dtype)

    def readout_gradient(self, gradient: torch.Tensor) -> None:
        """Note which final tokens the output really depends on."""
        self._reached = (gradient != 0).any(-1)

    def problem(self) -> str | None:
        """What was off, naming the layer; None if all agreed."""
        model = type(self._layout.model).__name__
        for name, error, tolerance in self._errors:
            if not error <= tolerance:
                return (
                    f"{name} is something other than the layout says (relative error {float(error):.1e}). The layout "
                    f"of {model} does not hold for this model; captum_astro.check compares every layer."
                )
        if self._read is not None and self._reached is not None:
            unread = (self._reached & ~self._read).any(0).nonzero().flatten().tolist()
            if unread:
                return (
                    f"The output depends on final tokens {unread[:5]}, which the layout of {model} does not read. "
                    f"Override its readout."
                )
        return None

    def _note(self, name: str, error: torch.Tensor, dtype: torch.dtype) -> None:
        if not self._random:
            self._errors.append((name, error, _TOLERANCE.get(dtype, _LOW_PRECISION_TOLERANCE)))


def _lowest(*dtypes: torch.dtype) -> torch.dtype:
    return max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)
