from __future__ import annotations

import pytest

from captum_astro.evaluation.run.shards import Shard, shard_of, wait


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20])
def test_shards_are_all_chunks_once(size: int) -> None:
    chunks = list(range(13))
    shards = [Shard(rank, size).mine(chunks) for rank in range(size)]
    assert sorted(chunk for shard in shards for chunk in shard) == chunks
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_the_environment() -> None:
    assert shard_of({}) == Shard(0, 1, 0)
    shard = shard_of({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"})
    assert (shard.first, shard.device("cuda"), shard.device("cuda:0"), shard.device("cpu")) == (
        False, "cuda:1", "cuda:0", "cpu",
    )  # fmt: skip
    assert Shard().device("cuda") == "cuda"
    for wrong in ({"RANK": "2", "WORLD_SIZE": "2"}, {"RANK": "x"}, {"LOCAL_RANK": "-1"}):
        with pytest.raises(ValueError, match="RANK"):
            shard_of(wrong)


def test_patience_restarts_with_every_change() -> None:
    now = [0.0]
    left = iter([3, 3, 3, 2, 2, 2, 2, 2, 2])

    def missing() -> int:
        now[0] += 1
        return next(left)

    assert wait(missing, patience=3.5, pause=0, clock=lambda: now[0]) == 2
    assert now[0] == 8
