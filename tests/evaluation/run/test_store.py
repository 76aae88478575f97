from __future__ import annotations

import errno
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captum_astro.evaluation.run import store as module
from captum_astro.evaluation.run.bench import run_bench
from captum_astro.evaluation.run.rows import ORDER, SCHEMA, MapRow, Row
from captum_astro.evaluation.run.store import BenchStore
from tests.evaluation.making import config, contents


def _row(sample: int, model: str = "b", method: str = "LRP") -> Row:
    return Row(sample, f"image {sample}", model, method, "SaCo", "predicted", 0.5, None, None)


def test_merge_sorts_by_model_and_sample(tmp_path: Path) -> None:
    store = BenchStore(tmp_path)
    store.begin({"a": 1})
    for number, label in enumerate(("b", "a")):
        for chunk in range(2):
            rows = [_row(2 * chunk + i, label, method) for method in ("VTranM", "LRP") for i in (1, 0)]
            store.add((number, chunk), rows, [MapRow(0, "x", label, "LRP", "predicted", 1, 1, b"ab")], {})
    assert store.chunks() == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [seal.chunk for seal in store.merge(["b", "a"], 2)] == [(1, 0), (1, 1), (0, 0), (0, 1)]
    found = pq.read_table(store.results)
    assert found.schema.equals(SCHEMA)
    assert found.num_rows == 16
    assert found.equals(found.sort_by([(name, "ascending") for name in ORDER]))
    assert found["model"].to_pylist() == ["a"] * 8 + ["b"] * 8


@pytest.mark.parametrize("at", ["rows", "maps", "results"])
def test_full_disk_leaves_no_partial_file(tmp_path: Path, monkeypatch, at: str) -> None:
    made = config("Random", "saco")
    run_bench(made, tmp_path / "whole")
    write, merge = pq.write_table, pq.ParquetWriter.write_table

    def full(found: pa.Table, part: Path, **keywords) -> None:
        if Path(part).parent.name == {"rows": "chunks"}.get(at, at):
            Path(part).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "Error writing bytes to file")
        write(found, part, **keywords)

    def full_merge(self, found: pa.Table, *rows: int, **keywords) -> None:
        if keywords:  # of write_table, which writes a chunk
            return merge(self, found, *rows, **keywords)
        raise OSError(errno.ENOSPC, "Error writing bytes to file")

    with monkeypatch.context() as patched:
        patched.setattr(module.pq, "write_table", full)
        if at == "results":
            patched.setattr(pq.ParquetWriter, "write_table", full_merge)
        with pytest.raises(OSError, match=f"No space left on device.*{at}"):
            run_bench(made, tmp_path / "full")
    assert pq.ParquetWriter.write_table is merge
    whole = contents(tmp_path / "whole")
    assert all(whole[name] == data for name, data in contents(tmp_path / "full").items())
    run_bench(made, tmp_path / "full")
    assert contents(tmp_path / "full") == whole


def test_unwritable_location(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OSError, match="file"):
        run_bench(config("Random", "saco"), tmp_path / "file" / "out")
    with pytest.raises(OSError, match="file"):
        run_bench(config("Random", "saco"), tmp_path / "file")
    assert contents(tmp_path) == {"file": b"no folder"}


def test_a_damaged_record(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        run_bench(config("Random", "saco"), tmp_path)


def test_rows_without_a_record(tmp_path: Path) -> None:
    made = config("Random", "saco")
    run_bench(made, tmp_path)
    (tmp_path / "run.json").unlink()
    with pytest.raises(ValueError, match=r"holds rows without run\.json"):
        run_bench(made, tmp_path)


def test_process_considered_dead_does_no_harm(tmp_path: Path, monkeypatch) -> None:
    """Its successor writes the same chunk while it is still running."""
    store = BenchStore(tmp_path)
    store.begin({})
    write = pq.write_table

    def interrupted(found: pa.Table, part: Path, **keywords) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(module.pq, "write_table", write)
            store.add((0, 0), [_row(0)], [], {0: "a"})
        assert store.check((0, 0)).samples == {0: "a"}
        write(found, part, **keywords)

    monkeypatch.setattr(module.pq, "write_table", interrupted)
    store.add((0, 0), [_row(0)], [], {0: "a"})
    assert [file.name for file in (tmp_path / "chunks").iterdir()] == ["rows-00-000000.parquet"]
    assert store.check((0, 0)).samples == {0: "a"}


@pytest.mark.parametrize("first", [{}, {"made": {"machine": "here"}}], ids=["earlier version", "another start"])
def test_the_machine_may_differ(tmp_path: Path, first: dict[str, str]) -> None:
    store = BenchStore(tmp_path)
    store.begin({"a": 1, **first})
    store.add((0, 0), [_row(0)], [], {0: "a"})
    store.begin({"a": 1, "made": {"machine": "there"}})
    assert store.check((0, 0)).samples == {0: "a"}
    assert store.read_record() == {"a": 1, **first}
