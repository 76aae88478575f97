"""`carry` and `carry_last` on records made by hand, against loops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from captum_astro.capture.affine import AffineMap
from captum_astro.capture.carry import Update, carry, carry_last
from captum_astro.capture.merging_record import MergingRecord
from captum_astro.capture.records import AttentionRecord, FeedForwardRecord, Pass, StageRecord
from captum_astro.functional.token_map import TokenMap, merge_map, tail_map, window_map

N = 5
T = torch.Tensor


class _Rows(Update):
    """The map of a layer is encoded in its stream; ``finish`` is called with the first stream."""

    def __init__(self, reads_pooling: bool = True, by_length: bool = False) -> None:
        self.reads_pooling, self.merges_by_length = reads_pooling, by_length

    def attention(self, row: T, record: AttentionRecord) -> T:
        return torch.einsum("b...i,bij->b...j", row, record.residual)

    def finish(self, row: T, stream: T) -> T:
        return row * stream[:, 0, 0].reshape(-1, *[1] * (row.ndim - 1))


class _Thinning(_Rows):
    """Feed-forward layers have a matrix, one tenth; and a row is halved before each stage with attention."""

    def feed_forward(self, row: T, record: FeedForwardRecord) -> T | None:
        return row / 10

    def entering(self, row: T, record: StageRecord) -> T:
        return row / 2 if record.attentions else row


def _attention(samples: int = 2, queries: int = N, keys: int = N, **placed: TokenMap) -> Any:
    matrix = torch.randn(samples, queries, keys, dtype=torch.float64)
    return AttentionRecord(None, 0, matrix, None, (), (), **placed)


FEED_FORWARD: Any = FeedForwardRecord(None, torch.empty(0), torch.empty(0))


def _stage(*branches: Any, **given: Any) -> StageRecord:
    stream = torch.full((2, 1, 1), 1.0, dtype=torch.float64)
    return StageRecord(None, (1, 1), stream, stream, branches, **given)


def _pass(*stages: StageRecord, pooling: Any = None, readout: T | None = None) -> Pass:
    """A pass whose first stream differs from the later stages' and between the images."""
    first = replace(stages[0], stream=torch.tensor([2.0, 3.0], dtype=torch.float64).reshape(2, 1, 1))
    readout = torch.rand(2, N, dtype=torch.float64) if readout is None else readout
    return Pass(torch.empty(0), (first, *stages[1:]), readout, pooling, (1, 1), (1, 1), (1, 1))


def _finished(*rows: Any) -> T:
    return torch.stack(
        [torch.as_tensor(row, dtype=torch.float64) * size for row, size in zip(rows, (2, 3), strict=True)]
    )


def _close(found: T, expected: T) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_rows_are_multiplied_from_the_last_layer_to_the_first() -> None:
    first, left, right = _attention(), _attention(), _attention()
    passed = _pass(_stage(first), _stage(FEED_FORWARD), _stage(left, FEED_FORWARD, right))
    rows = []
    for b in range(2):
        row = passed.readout[b].tolist()
        for maps in ([left, right], [first]):  # parallel layers are added, not multiplied
            row = [row[j] + sum(row[i] * float(m.residual[b, i, j]) for m in maps for i in range(N)) for j in range(N)]
        rows.append(row)
    _close(carry(passed, _Rows()), _finished(*rows))


def test_several_rows_at_once() -> None:
    passed, start = _pass(_stage(_attention()), _stage(_attention())), torch.randn(2, 3, N, dtype=torch.float64)
    together = carry(passed, _Rows(), start)
    assert together.shape == (2, 3, N)
    for m in range(3):
        _close(together[:, m], carry(passed, _Rows(), start[:, m]))


def test_feed_forward_layers_leave_the_row_unchanged() -> None:
    passed = _pass(_stage(FEED_FORWARD), _stage())
    for found in (carry(passed, _Rows()), carry_last(passed, _Rows())):
        _close(found, _finished(*passed.readout))


def test_feed_forward_layers_with_a_map_and_what_enters_a_stage() -> None:
    passed = _pass(_stage(_attention()), _stage(FEED_FORWARD, FEED_FORWARD))
    row = passed.readout * 1.2 / 2  # two tenths are added to the row; before the attention it is halved
    expected = row + torch.einsum("bi,bij->bj", row, passed.stages[0].attentions[0].residual)
    _close(carry(passed, _Thinning()), _finished(*expected))


@pytest.mark.parametrize("first", [0, 2])
def test_a_pooling_head_is_the_first_map_without_the_identity(first: int) -> None:
    pooling = _attention(queries=1, keys=N - first, sources=tail_map(N, first) if first else None)
    layer, readout = _attention(), torch.ones(2, 1, dtype=torch.float64)
    start = torch.zeros(2, N, dtype=torch.float64)
    start[:, first:] = pooling.residual[:, 0]
    _close(carry(_pass(_stage(), pooling=pooling, readout=readout), _Rows()), _finished(*start))
    passed = _pass(_stage(layer), pooling=pooling, readout=readout)
    after = torch.einsum("bi,bij->bj", start, layer.residual)
    _close(carry(passed, _Rows()), _finished(*(start + after)))
    # the last layer is the head, so nothing before it counts; or it is gone through
    _close(carry_last(passed, _Rows()), _finished(*start))
    _close(carry_last(passed, _Rows(reads_pooling=False)), _finished(*after))


def test_only_the_last_layer() -> None:
    last, before, readout = _attention(), _attention(), torch.rand(2, N, dtype=torch.float64)
    expected = torch.einsum("bi,bij->bj", readout, last.residual)
    _close(
        carry_last(_pass(_stage(before), _stage(last), _stage(FEED_FORWARD), readout=readout), _Rows()),
        _finished(*expected),
    )
    other = torch.einsum("bi,bij->bj", readout, before.residual)
    _close(carry_last(_pass(_stage(last, before), readout=readout), _Rows()), _finished(*(expected + other)))


def test_windows_are_samples() -> None:
    """Two windows of two images, each with its own map; a 2 x 3 grid, padded to 2 x 4."""
    tokens = window_map((2, 3), (2, 2), (0, 1))
    layer, readout = _attention(samples=4, queries=4, keys=4, outputs=tokens, sources=tokens), torch.rand(2, 6).double()
    passed = _pass(_stage(layer), readout=readout)
    # rolled by one column, 1 2 0 and padding: the first window has columns 1 and 2, the second column 0
    windows = [[1, 2, 4, 5], [0, None, 3, None]]
    rows = []
    for b in range(2):
        row = readout[b].tolist()
        for w, places in enumerate(windows):
            for i, query in enumerate(places):
                for j, key in enumerate(places):
                    if query is not None and key is not None:
                        row[key] += float(readout[b, query] * layer.residual[2 * b + w, i, j])
        rows.append(row)
    _close(carry(passed, _Rows()), _finished(*rows))


def _merging() -> MergingRecord:
    """3 x 3 tokens of width 2 into 2 x 2 of width 3."""
    residual, matrix = torch.randn(2, 9, 2, dtype=torch.float64), torch.randn(8, 3, dtype=torch.float64)
    scale = torch.rand(2, 1, 4, dtype=torch.float64) + 0.1
    return MergingRecord(merge_map((3, 3)), residual, AffineMap(matrix, scale, torch.randn(3, dtype=torch.float64)))


# the nine tokens of a 3 x 3 grid, as each of the four new ones concatenates them
SOURCES = [[0, 3, 1, 4], [2, 5, None, None], [6, None, 7, None], [8, None, None, None]]


@pytest.mark.parametrize("by_length", [False, True])
def test_merging(by_length: bool) -> None:
    merging, readout = _merging(), torch.rand(2, 4, dtype=torch.float64)
    passed = _pass(_stage(merging=merging), _stage(FEED_FORWARD), readout=readout)
    expected = torch.zeros(2, 9, dtype=torch.float64)
    for b in range(2):
        for new, sources in enumerate(SOURCES):
            real = [(k, source) for k, source in enumerate(sources) if source is not None]
            lengths = [
                float((merging.residual[b, source] @ merging.map_out.matrix[2 * k : 2 * k + 2]).norm())
                for k, source in real
            ]
            for length, (_, source) in zip(lengths, real, strict=True):
                share = length / sum(lengths) if by_length else 1 / len(real)
                expected[b, source] += share * readout[b, new]
    update = _Rows(by_length=by_length)
    _close(carry(passed, update), _finished(*expected))
    _close(expected.sum(1), readout.sum(1))
    # the last layer alone comes down in the same way, and a layer before the merging is not read
    later = _attention(queries=4, keys=4)
    passed = _pass(_stage(_attention(queries=9, keys=9)), _stage(merging=merging), _stage(later), readout=readout)
    above = torch.einsum("bi,bij->bj", readout, later.residual)
    _close(carry_last(passed, update), carry(_pass(_stage(merging=merging), readout=above), update))


def test_a_merging_is_the_sum_of_its_contributions() -> None:
    merging = _merging()
    parts, rebuilt, out = merging.contributions(), merging.rebuilt(), merging.map_out
    assert parts.shape == (2, 4, 4, 3)
    for b in range(2):
        for new, sources in enumerate(SOURCES):
            total = torch.zeros(3, dtype=torch.float64)
            for k, source in enumerate(sources):
                part = torch.zeros(3, dtype=torch.float64)
                if source is not None:
                    part = merging.residual[b, source] @ out.matrix[2 * k : 2 * k + 2] * out.query_scale[b, 0, new]
                _close(parts[b, new, k], part)
                total += part
            _close(rebuilt[b, new], total + out.constant)
    _close(merging.contributions([3]), parts[:, 3:])


def test_zero_length_contributions_get_no_share() -> None:
    """No division by zero."""
    merging = _merging()
    merging.residual[:, 8] = 0
    share = merging.by_length().share
    assert share is not None
    assert torch.equal(share[:, 0, 3], torch.zeros(2, 4, dtype=torch.float64))
    _close(share[:, 0, :3].sum(-1), torch.ones(2, 3, dtype=torch.float64))


def test_an_update_says_what_a_layer_does() -> None:
    with pytest.raises(TypeError, match="abstract"):
        Update()
