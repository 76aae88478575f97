from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captum_astro.evaluation.run.rows import SCHEMA, Row, table
from captum_astro.evaluation.run.seals import DamagedError, Seal, content, read_sealed, read_unsealed, sealed, seals_of

ROW = Row(0, "a", "vit", "LRP", "SaCo", "predicted", 0.5, [0.0, 1.0])
READERS = [lambda file: list(read_sealed(file, SCHEMA)), lambda file: read_unsealed(file, SCHEMA), seals_of]
CHANGES = [
    {"sample": 1},
    {"name": "b"},
    {"value": None},
    {"value": 0.0},
    {"value": -0.0},
    {"value": 0.5000000000000001},
    {"curve": None},
    {"curve": []},
    {"curve": [0.0]},
    {"curve": [0.0, float("nan")]},
    {"curve": [1.0, 0.0]},
]


def test_every_value_counts() -> None:
    tables = [table([ROW]), table([ROW, ROW]), table([]), *(table([ROW._replace(**change)]) for change in CHANGES)]
    assert len({content(one) for one in tables}) == len(tables)


@pytest.mark.parametrize("change", CHANGES)
def test_the_content_is_that_of_the_values_however_they_are_stored(tmp_path: Path, change) -> None:
    whole = table([ROW, ROW._replace(**change), ROW])
    pieces = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])
    pq.write_table(whole, tmp_path / "a.parquet", compression="gzip", use_dictionary=False, row_group_size=2)
    assert content(whole) == content(pieces) == content(pq.read_table(tmp_path / "a.parquet"))


def _seal(number: int, rows: pa.Table, **changes: object) -> Seal:
    made = Seal("run", (0, number), {number: "a"}, len(rows), len(rows), content(rows), "")
    return made._replace(**changes)


def _write(file: Path, seals: list[Seal], tables: list[pa.Table]) -> None:
    schema = sealed(SCHEMA, seals)
    with pq.ParquetWriter(file, schema) as writer:
        for one in tables:
            writer.write_table(one.cast(schema))


def test_chunks_are_read_one_by_one_also_without_rows(tmp_path: Path) -> None:
    tables = [table([]), table([ROW]), table([]), table([ROW, ROW]), table([])]
    seals = [_seal(number, one) for number, one in enumerate(tables)]
    _write(tmp_path / "a", seals, tables)
    found = list(read_sealed(tmp_path / "a", SCHEMA))
    assert [seal for seal, _ in found] == seals
    assert all(one.equals(other) for (_, one), other in zip(found, tables, strict=True))


@pytest.mark.parametrize(
    "wrong", [
        "rows more", "rows less", "rows other", "no seals", "odd seals", "other schema", "no bytes",
        "chunk -1", "chunk 1e300", "chunk ../0", "maps 5",
    ],
)  # fmt: skip
def test_a_file_that_is_not_what_was_written_is_named(tmp_path: Path, wrong: str) -> None:
    file, rows = tmp_path / "a", table([ROW])
    seals, tables = [_seal(0, rows)], [rows]
    if wrong == "rows more":
        tables.append(rows)
    elif wrong == "rows less":
        tables = []
    elif wrong == "rows other":
        tables = [table([ROW._replace(value=1.0)])]
    elif wrong.startswith("chunk"):
        _, odd = wrong.split()
        seals = [seals[0]._replace(chunk=(0, odd if "/" in odd else float(odd) if "e" in odd else int(odd)))]
    elif wrong == "maps 5":
        seals = [seals[0]._replace(maps=5)]
    _write(file, seals, tables)
    if wrong == "no seals":
        pq.write_table(rows, file)
    elif wrong == "odd seals":
        pq.write_table(rows.replace_schema_metadata({"captum_astro": json.dumps([[1, 2]])}), file)
    elif wrong == "other schema":
        pq.write_table(rows.drop_columns("curve").replace_schema_metadata(sealed(SCHEMA, seals).metadata), file)
    elif wrong == "no bytes":
        file.write_bytes(b"")
    with pytest.raises(DamagedError, match=f"{file} is damaged"):
        list(read_sealed(file, SCHEMA))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("read", READERS)
def test_a_pipe_is_not_waited_for(tmp_path: Path, read: Callable[[Path], object]) -> None:
    file = tmp_path / "a"
    os.mkfifo(file)
    with pytest.raises(DamagedError, match=f"{file} is damaged: it is no regular file"):
        read(file)


@pytest.mark.parametrize("read", READERS[:2])
def test_rows_that_unpack_to_more_than_a_machine_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object]
) -> None:
    monkeypatch.setattr("captum_astro.evaluation.run.seals.LARGEST", 1 << 22)
    file, rows = tmp_path / "a", table([ROW._replace(name="x" * 100_000)] * 300)
    _write(file, [_seal(0, rows)], [rows])
    assert file.stat().st_size < 10_000
    with pytest.raises(DamagedError, match=f"{file} is damaged: more than 4 MiB of rows when unpacked"):
        read(file)
