"""The identity check: what was captured must rebuild what the model computed."""

from __future__ import annotations

import torch

from captum_astro.capture.records import AttentionRecord, StageRecord
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
    stream, following = widen(record.stream[:, rows]), widen(record.following[:, rows])
    added = rebuilt(record, rows)
    difference = (following - stream - added).abs().amax()
    size = torch.maximum(stream.abs().amax(), following.abs().amax())
    rounding = 4 * torch.finfo(record.stream.dtype).eps * size
    return difference / torch.where(difference <= rounding, size, added.abs().amax())


class SpotCheck:
    """One row of every stage is rebuilt in every pass, so that a wrong layout never gives a map in silence.

    Costs O(n d) a layer. Layers under dropout are not compared.

    Args:
        layout: Of the model that is explained.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._errors: list[tuple[str, torch.Tensor, float]] = []
        self._read: torch.Tensor | None = None
        self._reached: torch.Tensor | None = None

    def stage(self, record: StageRecord) -> None:
        """Compare the first token of a stage."""
        if any(module.training for module in self._layout.model.modules()):
            return
        name = " + ".join(branch.branch.name for branch in record.branches)
        lowest = min(
            (branch.attention.value.dtype for branch in record.branches if isinstance(branch, AttentionRecord)),
            key=lambda dtype: -torch.finfo(dtype).eps,
            default=record.stream.dtype,
        )
        tolerance = _TOLERANCE.get(lowest, _LOW_PRECISION_TOLERANCE)
        self._errors.append((name, identity_error(record, slice(0, 1)), tolerance))

    def readout(self, weights: torch.Tensor, final: torch.Tensor, pooling: AttentionRecord | None) -> None:
        """Note which final tokens the layout says are read."""
        if pooling is None:
            self._read = weights != 0
        else:
            assert self._layout.pooling is not None
            self._read = torch.arange(final.shape[1]) >= self._layout.pooling.first_token

    def readout_gradient(self, gradient: torch.Tensor) -> None:
        """Note which final tokens the output really depends on."""
        self._reached = (gradient != 0).any(-1).any(0)

    def problem(self) -> str | None:
        """What was off, naming the layer; None if all agreed."""
        model = type(self._layout.model).__name__
        for name, error, tolerance in self._errors:
            if not error <= tolerance:
                return (
                    f"{name} adds something other than its layout says (relative error {float(error):.1e}). The layout "
                    f"of {model} does not hold for this model; captum_astro.check compares every layer."
                )
        if self._read is not None and self._reached is not None:
            unread = (self._reached.cpu() & ~self._read).nonzero().flatten().tolist()
            if unread:
                return (
                    f"The output depends on final tokens {unread[:5]}, which the layout of {model} does not read. "
                    f"Override its readout."
                )
        return None
