"""The identity check: what was recorded must reconstruct what the model computed."""

from __future__ import annotations

import functools

import torch

from captum_astro.capture.branches import Branches, by_outputs, changed
from captum_astro.capture.records import AttentionRecord, FeedForwardRecord, StageRecord, spots
from captum_astro.functional.attention import widen


def rebuilt_attention(record: AttentionRecord, places: list[int] | None = None) -> torch.Tensor:
    """``sum_h A_h E~_h + bias`` for some or all queries, directly from the definition: ``(B, places, d)``.

    Overlapping windows are summed for all queries: ``(images, n, d)``.
    """
    attention, out = record.attention, record.map_out
    chosen = slice(None) if places is None else places
    rows = attention.rows(0, attention.queries) if places is None else attention.at(places)
    mixed = rows @ widen(attention.value).contiguous()
    if attention.constant is not None:
        mixed = mixed + attention.constant[:, :, chosen]
    if record.gate is not None:
        mixed = mixed * record.gate[:, :, chosen]
    if out.query_scale is not None:
        mixed = mixed * out.query_scale[:, :, chosen, None]
    added = mixed.transpose(1, 2).flatten(2)
    added = added if out.factors is None else added * out.factors[:, chosen]
    added = added if out.matrix is None else added @ out.matrix
    if record.branch.overlapping and record.outputs is not None:
        added = record.outputs.scatter(added.movedim(1, -1)).movedim(-1, 1)
    if out.constant is None:
        return added
    return added + (out.constant[:, chosen] if out.constant.ndim == 3 else out.constant)


def identity_error(record: StageRecord, few: bool = False) -> torch.Tensor:
    """The largest ``|E_next - E - sum of the branches|``, relative to the largest entry of what is added.

    LayerScale may make a branch tiny compared with ``E``. A difference within the rounding of ``E`` itself is therefore
    relative to ``E``, as ``E_next - E`` has no better precision. A change of resolution has no ``E``.

    Args:
        record: The stage.
        few: Compare the tokens of `spots` only; with windows, those of every window.

    Returns:
        A scalar tensor.
    """
    following, dtype = _sum(record), record.stream.dtype
    if record.merging is not None and not record.branches:
        if record.merging.shared:  # only the number of tokens is known
            same = following.shape[1] == record.merging.tokens.index.shape[1]
            return following.new_tensor(0.0 if same else torch.inf)
        rows = spots(following.shape[1]) if few else slice(None)
        expected = record.merging.rebuilt(rows)
        return relative(following[:, rows], expected, expected, dtype, few)
    errors = [_branches_error(record, branches, following, few) for branches in by_outputs(record.branches)]
    return functools.reduce(torch.maximum, errors)


def _branches_error(record: StageRecord, branches: Branches, following: torch.Tensor, few: bool) -> torch.Tensor:
    """The same for the tokens that these branches change."""
    dtype, windows, first = record.stream.dtype, changed(branches[0]), branches[0]
    targets = first.attention.queries if first.output is None else first.output.shape[1]
    places = spots(targets) if few else None
    rows = slice(None) if places is None else places
    if isinstance(first, AttentionRecord) and first.branch.overlapping:
        stream = _kept(record, slice(None))
        return relative(following - stream, _added(branches, None), stream, dtype)
    if windows is None:
        stream, added, following = _kept(record, rows), _added(branches, places), following[:, rows]
        if record.merging is not None:  # what it is added to is rebuilt, too, with its own rounding
            return relative(following, stream + added, stream, dtype, few)
        return relative(following - stream, added, stream, dtype, few)
    chosen = windows if places is None else windows.only(places)
    # attention outputs at padding are dropped
    added = _added(branches, places) * chosen.present.repeat(len(following), 1)[..., None]
    stream = chosen.gather(_kept(record, slice(None)))
    return relative(chosen.gather(following) - stream, added, stream, dtype, few)


def _sum(record: StageRecord) -> torch.Tensor:
    """The stream with the branches added; before a norm of the first tokens only, the others are as they go on."""
    if record.summed is None:
        return widen(record.following)
    others = record.following[:, record.summed.shape[1] :]
    return widen(torch.cat([record.summed, others], 1) if others.numel() else record.summed)


def _added(branches: Branches, places: list[int] | None) -> torch.Tensor:
    """The sum of some branches."""
    rows = slice(None) if places is None else places
    parts = []
    for branch in branches:
        if branch.output is None:
            assert isinstance(branch, AttentionRecord)
            parts.append(rebuilt_attention(branch, places))
        else:
            parts.append(widen(branch.output[:, rows]))
    return functools.reduce(torch.add, parts)


def _kept(record: StageRecord, rows: slice | list[int]) -> torch.Tensor:
    """What the branches are added to: the stream, the merged tokens, or nothing."""
    if not record.keeps:
        return torch.zeros_like(widen(record.following[:, rows]))
    return widen(record.stream[:, rows]) if record.merging is None else record.merging.rebuilt(rows)


def relative(
    found: torch.Tensor, expected: torch.Tensor, stream: torch.Tensor, dtype: torch.dtype, each: bool = False
) -> torch.Tensor:
    """The largest error of ``(B, places, d)``, relative to the largest entry over all places, or per place."""
    difference, added, before = (_largest(x, each) for x in (found - expected, expected, stream))
    size = torch.maximum(before, added)
    error = difference / torch.where(difference <= 4 * torch.finfo(dtype).eps * size, size, added)
    return torch.where(difference == 0, 0.0, error).amax()  # 0 also where there is nothing to compare, as in padding


def _largest(x: torch.Tensor, each: bool) -> torch.Tensor:
    """The largest absolute value of ``(B, places, d)``, or that of each place."""
    if each:
        return x.abs().amax((0, 2))
    low, high = x.aminmax()  # one pass over the data, without a copy
    return torch.maximum(low.abs(), high.abs())  # not -low: a size of -0 would make every error -inf


def value_error(record: AttentionRecord) -> torch.Tensor:
    """Error of the recorded values relative to ``W_V x + constant``, and of x to the tokens entering the branch."""
    value = widen(record.projected)
    if record.read is None or record.branch.value_weight is None:
        return value.new_zeros(())
    if record.entered is not None and record.entered.shape == record.read.shape:
        # other tokens than the layout says would have been read
        moved = relative(widen(record.read), widen(record.entered), widen(record.entered), record.read.dtype, each=True)
    else:
        moved = value.new_zeros(())
    weight = record.value_weight().to(value)
    read, where = widen(record.read), spots(value.shape[2])
    found = value[:, :, where]
    if record.values is not None:
        read = read * record.values.factors[:, None]
        if record.values.shift is not None:
            found = found - record.values.shift[:, None, where, None]
        found = found / record.values.scale[:, None, where, None]
    if record.value_scale is not None:
        scale = record.value_scale[:, :, where, None]
        found = found / scale.repeat_interleave(found.shape[1] // scale.shape[1], 1)
    expected = torch.einsum("bnd,hvd->bhnv", read, weight)
    # of sums of products, and of what is added to them
    size = torch.maximum(read.norm(dim=-1).amax() * weight.norm(dim=-1).amax(), found.abs().amax())
    rounding = 4 * torch.finfo(record.projected.dtype).eps * size
    expected, found = (x - x[:, :, 1:2] for x in (expected, found))  # without the constant
    if record.branch.overlapping and record.sources is not None:  # values are padded after their projection
        here = record.sources.only(where).present.repeat(len(found) // len(record.sources.index), 1)
        expected, found = (x * here[:, None, :, None] for x in (expected, found))
    error = (found - expected).abs().amax() / expected.abs().amax().clamp(min=torch.finfo(value.dtype).tiny)
    # nearly identical tokens, as for a blank image without position embeddings, leave nothing to compare
    alike = (found - expected).abs().amax() <= rounding
    return torch.maximum(torch.where(alike, 0.0, error), moved.to(error))


def keys_error(record: AttentionRecord) -> torch.Tensor:
    """Error of the keys that tokens were reduced to, from the tokens that entered; 0 if there are none."""
    reduced = record.reduced
    if reduced is None or reduced.merged is None:
        return record.residual.new_zeros(())
    expected = reduced.rebuilt(spots(reduced.tokens.index.shape[1]))
    return relative(widen(reduced.merged), expected, expected, reduced.merged.dtype, each=True)


def sources_error(record: FeedForwardRecord) -> torch.Tensor:
    """Error of what a layer adds, from the tokens of which it is a linear map; 0 if it reads each token by itself."""
    if record.sources is None:
        return record.output.new_zeros(())
    places = spots(record.output.shape[1])
    expected = record.sources.rebuilt(places)
    return relative(widen(record.output[:, places]), expected, expected, record.output.dtype, each=True)
