from __future__ import annotations

from typing import Any

import pytest
import torch

from captum_astro.attr._walker import LastLayerWalker, RowWalker
from captum_astro.capture.records import AttentionRecord, FeedForwardRecord, StageRecord

N = 5


class _Rows(RowWalker):
    """The map of a layer stands where its stream does."""

    def update(self, row: torch.Tensor, record: AttentionRecord) -> torch.Tensor:
        return torch.einsum("bi,bij->bj", row, record.stream)


class _Last(LastLayerWalker):
    update = _Rows.update


def _attention(queries: int = N, first_key: int = 0) -> Any:
    matrix = torch.randn(2, queries, N - first_key, dtype=torch.float64)
    return AttentionRecord(None, matrix, None, first_key=first_key)


def _stage(*branches: Any) -> Any:
    return StageRecord(None, torch.empty(0), torch.empty(0), list(branches))


FEED_FORWARD: Any = FeedForwardRecord(None, torch.empty(0), torch.empty(0))


def _walked(walker: Any, readout: torch.Tensor, pooling: Any, stages: list[Any]) -> torch.Tensor:
    walker.begin(readout, pooling)
    for stage in stages:
        walker.step(stage)
    walker.end(torch.empty(0))
    return walker.tokens


def test_rows_are_multiplied_layer_by_layer() -> None:
    first, left, right = _attention(), _attention(), _attention()
    readout = torch.rand(2, N, dtype=torch.float64)
    found = _walked(_Rows(), readout, None, [_stage(first), _stage(FEED_FORWARD), _stage(left, FEED_FORWARD, right)])
    for b in range(2):
        row = readout[b].tolist()
        for maps in ([first], [left, right]):  # parallel layers are added, not multiplied
            row = [row[j] + sum(row[i] * float(m.stream[b, i, j]) for m in maps for i in range(N)) for j in range(N)]
        torch.testing.assert_close(found[b], torch.tensor(row, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_feed_forward_layers_leave_the_row_as_it_is() -> None:
    readout = torch.rand(2, N, dtype=torch.float64)
    for walker in (_Rows(), _Last()):
        assert torch.equal(_walked(walker, readout, None, [_stage(FEED_FORWARD)]), readout)


@pytest.mark.parametrize("first_key", [0, 2])
def test_a_pooling_head_is_the_first_map_without_the_identity(first_key: int) -> None:
    pooling, layer = _attention(queries=1, first_key=first_key), _attention()
    readout = torch.ones(2, 1, dtype=torch.float64)
    start = torch.zeros(2, N, dtype=torch.float64)
    start[:, first_key:] = pooling.stream[:, 0]
    assert torch.equal(_walked(_Rows(), readout, pooling, []), start)
    expected = start + torch.einsum("bi,bij->bj", start, layer.stream)
    torch.testing.assert_close(_walked(_Rows(), readout, pooling, [_stage(layer)]), expected)
    # the last layer is the head, so nothing before it counts
    assert torch.equal(_walked(_Last(), readout, pooling, [_stage(layer)]), start)


def test_the_last_layer_alone() -> None:
    """Stages come from the last to the first."""
    last, before = _attention(), _attention()
    readout = torch.rand(2, N, dtype=torch.float64)
    expected = torch.einsum("bi,bij->bj", readout, last.stream)
    found = _walked(_Last(), readout, None, [_stage(FEED_FORWARD), _stage(last), _stage(before)])
    torch.testing.assert_close(found, expected)
    both = _walked(_Last(), readout, None, [_stage(last, before)])
    torch.testing.assert_close(both, expected + torch.einsum("bi,bij->bj", readout, before.stream))


def test_nothing_of_a_walk_is_left_for_the_next() -> None:
    walker, layer, readout = _Last(), _attention(), torch.rand(2, N, dtype=torch.float64)
    found = _walked(walker, readout, None, [_stage(layer)])
    assert torch.equal(_walked(walker, readout, None, [_stage(layer)]), found)


def test_a_walker_says_what_a_layer_does() -> None:
    with pytest.raises(TypeError, match="abstract"):
        RowWalker()
