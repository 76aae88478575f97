"""Processes that share a folder: they stop, disagree, begin together, or files are deleted under them."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from captum_astro.evaluation.run import notices, read_run, run_bench
from captum_astro.evaluation.run.leftovers import Use
from captum_astro.evaluation.run.notices import Notices
from captum_astro.evaluation.run.shards import Shard
from captum_astro.evaluation.run.store import BenchStore
from captum_astro.storage import PART
from tests.evaluation.making import config, contents, started

MADE = config("Random", "saco", chunk_size=1)


def _chunk(folder: Path, number: int) -> Path:
    return BenchStore(folder).rows_file((0, number))


def _after(monkeypatch: pytest.MonkeyPatch, chunks: int, act) -> None:
    """Do something once, after some chunks are stored."""
    add, stored = BenchStore.add, [0]

    def counted(self, *arguments: object) -> None:
        add(self, *arguments)
        stored[0] += 1
        if stored[0] == chunks:
            act()

    monkeypatch.setattr(BenchStore, "add", counted)


def test_one_with_other_options_stops_and_the_others_with_it(tmp_path: Path, monkeypatch) -> None:
    def other() -> None:
        with pytest.raises(ValueError, match=r"another run \(configuration.steps differ\)"):
            run_bench(config("Random", "saco", chunk_size=1, steps=9), tmp_path, shard=Shard(1, 2))

    _after(monkeypatch, 2, other)
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"Process 1 has stopped: .*another run \(configuration.steps differ\)"):
        run_bench(MADE, tmp_path, shard=Shard(0, 2))
    assert time.monotonic() - began < 60  # and not half an hour
    assert len(BenchStore(tmp_path).chunks()) == 3
    run_bench(MADE, tmp_path, shard=Shard(1, 2))
    assert run_bench(MADE, tmp_path, shard=Shard(0, 2)).missing == 0
    assert not list(tmp_path.glob("stopped-*"))


def test_one_that_waits_for_the_record_ends_with_the_first(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(notices, "GRACE", 0.0)
    folder = tmp_path / "out"
    with pytest.raises(ValueError, match="--data must be"):
        run_bench(config(data="nothing"), folder, shard=Shard(0, 2))
    with pytest.raises(ValueError, match="Process 0 has stopped: --data must be"):
        run_bench(MADE, folder, shard=Shard(1, 2))
    with pytest.raises(ValueError, match="--data must be"):
        run_bench(config(data="nothing"), tmp_path / "alone")
    assert not (tmp_path / "alone").exists()


def test_notices_of_an_earlier_start_are_forgotten(tmp_path: Path, monkeypatch) -> None:
    for rank in (0, 1):
        with pytest.raises(KeyError), Notices(tmp_path, Shard(rank, 3)):
            raise KeyError(f"of {rank}")
    with Notices(tmp_path, Shard(1, 3)) as second:
        second.check()  # it may be of an earlier start
        monkeypatch.setattr(notices, "GRACE", 0.0)
        with pytest.raises(ValueError, match="Process 0 has stopped: 'of 0'"):
            second.check()
    (tmp_path / "stopped-early.txt").write_text("of somebody else")
    with Notices(tmp_path, Shard()) as alone:  # of fewer processes than before
        alone.check()
    assert [file.name for file in tmp_path.iterdir()] == ["stopped-early.txt"]


def test_a_chunk_of_its_own_is_deleted(tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patched:
        _after(patched, 4, _chunk(tmp_path, 1).unlink)
        with pytest.raises(ValueError, match=r"rows-00-000001.parquet was deleted while the benchmark ran"):
            run_bench(MADE, tmp_path)
    assert run_bench(MADE, tmp_path).computed == 1


def test_a_chunk_of_another_is_deleted(tmp_path: Path, monkeypatch) -> None:
    def other() -> None:
        run_bench(MADE, tmp_path, shard=Shard(1, 2))

    with monkeypatch.context() as patched:
        _after(patched, 1, other)
        merge = BenchStore.merge
        patched.setattr(BenchStore, "merge", lambda *all_: (_chunk(tmp_path, 1).unlink(), merge(*all_)))
        with pytest.raises(ValueError, match=r"rows-00-000001.parquet was deleted while the benchmark ran"):
            run_bench(MADE, tmp_path, shard=Shard(0, 2))
    assert run_bench(MADE, tmp_path).computed == 1


def test_a_chunk_that_is_damaged_before_the_merge(tmp_path: Path, monkeypatch) -> None:
    with monkeypatch.context() as patched:
        _after(patched, 4, lambda: _chunk(tmp_path, 1).write_bytes(b"half"))
        with pytest.raises(ValueError, match=r"rows-00-000001.parquet is damaged. Run the same command again"):
            run_bench(MADE, tmp_path)
    assert not (tmp_path / "results.parquet").exists()
    assert run_bench(MADE, tmp_path).computed == 1


def test_the_record_is_deleted(tmp_path: Path, monkeypatch) -> None:
    _after(monkeypatch, 4, (tmp_path / "run.json").unlink)
    run_bench(MADE, tmp_path)
    assert read_run(tmp_path).config["configuration"]["steps"] == 4


def test_leftovers_are_removed_when_nobody_uses_the_folder(tmp_path: Path) -> None:
    leftover, theirs = tmp_path / f".0{PART}", tmp_path / ".film.mp4.part"
    for file in (leftover, theirs):
        file.write_text("half")
    with Use(tmp_path) as one:
        with Use(tmp_path) as other:
            other.tidy(patience=0.1)
            assert leftover.exists()
        one.tidy()
    assert [file.name for file in tmp_path.iterdir()] == [theirs.name]


def test_two_commands_in_one_new_folder(tmp_path: Path) -> None:
    run_bench(MADE, tmp_path / "whole")
    processes = [started(tmp_path / "both", MADE) for _ in range(2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert contents(tmp_path / "both") == contents(tmp_path / "whole")


def test_many_begin_in_one_new_folder(tmp_path: Path) -> None:
    """Half of them with other options: one wins, those like it go on, and the others stop with the reason."""
    for attempt in range(20):
        folder, ready, ends = tmp_path / str(attempt), threading.Barrier(8), []

        def begin(steps: int, folder=folder, ready=ready, ends=ends) -> None:
            ready.wait()
            try:
                BenchStore(folder).begin({"steps": steps})
                ends.append((steps, ""))
            except BaseException as error:
                ends.append((steps, f"{type(error).__name__}: {error}"))

        threads = [threading.Thread(target=begin, args=(number % 2,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winners = {steps for steps, reason in ends if not reason}
        assert len(winners) == 1
        losers = [reason for steps, reason in ends if steps not in winners]
        assert len(losers) == 4
        assert all("ValueError" in reason and "(steps differ)" in reason for reason in losers)
        assert sorted(os.listdir(folder)) == ["chunks", "maps", "run.json"]
