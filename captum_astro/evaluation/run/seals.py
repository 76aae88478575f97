"""What stored rows were computed from, and a digest of their content, in the metadata of their file."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from captum_astro.data.files import LARGEST
from captum_astro.evaluation.run.failures import is_of_the_machine

Chunk = tuple[int, int]  # the index of the model, and of the chunk
_KEY = b"captum_astro"
_MOST = 10**9  # of anything that is numbered or counted
_ROWS = 256  # unpacked at a time
# without statistics, by which other readers skip rows: no digest covers them
OPTIONS: dict[str, Any] = {"compression": "zstd", "write_page_checksum": True, "write_statistics": False}


class DamagedError(ValueError):
    """A file that does not hold what was written to it."""


class Seal(NamedTuple):
    """What the rows of one chunk are.

    Attributes:
        run: Digest of the record of the run, see `run_digest`.
        chunk: The index of the model, and of the chunk.
        samples: The digest of each sample as it was scored, by its index.
        rows: The number of rows.
        good: The number of rows without a failure: of those of methods, if there are any.
        content: Digest of the rows.
        maps: Digest of the stored maps, empty if there are none.
    """

    run: str
    chunk: Chunk
    samples: dict[int, str]
    rows: int
    good: int
    content: str
    maps: str


def run_digest(record: Mapping[str, Any], free: Sequence[str]) -> str:
    """A short digest of the record of a run.

    Args:
        record: JSON-serialisable.
        free: Names with dots, as in `captum_astro.storage.differences`, that are left out.

    Example:
        >>> here, there = ({"a": {"b": b, "c": 2}} for b in (1, 3))
        >>> run_digest(here, ["a.b"]) == run_digest(there, ["a.b"])
        True
    """
    kept = {
        key: {name: one for name, one in value.items() if f"{key}.{name}" not in free}
        if isinstance(value, Mapping) else value
        for key, value in record.items() if key not in free
    }  # fmt: skip
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def content(table: pa.Table) -> str:
    """A digest of a table's values, however they are stored."""
    found = hashlib.sha256(str(table.num_rows).encode())
    for name in table.column_names:
        for part in _bytes(table[name].combine_chunks()):
            found.update(part)
    return found.hexdigest()[:32]


def sealed(schema: pa.Schema, seals: Sequence[Seal]) -> pa.Schema:
    """A schema whose metadata hold the seals of the chunks in a file, in their order."""
    return schema.with_metadata({_KEY: json.dumps(seals).encode()})


def write_table(found: pa.Table, file: Path) -> None:
    """Write a table as one group of rows, as `read_sealed` expects of a chunk."""
    pq.write_table(found, file, row_group_size=max(1, len(found)), **OPTIONS)


def seals_of(file: Path) -> list[Seal]:
    """The seals in a file.

    Raises:
        DamagedError: If they cannot be read.
        FileNotFoundError: If there is no such file.
    """
    with _guarded(file, lambda: _open(file)) as opened:
        found: list[Seal] = _guarded(file, lambda: _seals(opened.schema_arrow))
    return found


def read_sealed(file: Path, schema: pa.Schema) -> Iterator[tuple[Seal, pa.Table]]:
    """The chunks in a file, one by one, each with its seal; every value is what was written.

    Raises:
        DamagedError: If the file is damaged.
        FileNotFoundError: If there is no such file.
    """
    with _guarded(file, lambda: _open(file)) as opened:
        seals = _guarded(file, lambda: _seals(opened.schema_arrow))
        known = opened.metadata
        groups = (i for i in range(known.num_row_groups) if known.row_group(i).num_rows)  # one a chunk, if it has rows
        for seal in seals:

            def read(seal: Seal = seal) -> pa.Table:
                table = _unpacked(file, opened, [next(groups)]) if seal.rows else schema.empty_table()
                return _checked(table, schema, seal.content)

            yield seal, _guarded(file, read)
        if next(groups, None) is not None:
            raise DamagedError(f"{file} is damaged: it holds more rows than were written.")


def read_unsealed(file: Path, schema: pa.Schema, digest: str | None = None) -> pa.Table:
    """A table without seals.

    Args:
        file: The file.
        schema: The table's.
        digest: Its digest, if it is known.

    Raises:
        DamagedError: If the file is damaged.
        FileNotFoundError: If there is no such file.
    """
    with _guarded(file, lambda: _open(file)) as opened:
        return _guarded(file, lambda: _checked(_unpacked(file, opened), schema, digest))


def _open(file: Path) -> pq.ParquetFile:
    if not stat.S_ISREG(file.stat().st_mode):  # a pipe would be waited for
        raise DamagedError(f"{file} is damaged: it is no regular file.")
    return pq.ParquetFile(file, page_checksum_verification=True)


def _unpacked(file: Path, opened: pq.ParquetFile, groups: list[int] | None = None) -> pa.Table:
    """Some groups of rows, or all, in pieces: a repeated value takes no space in a file, and any in memory."""
    size, parts = 0, []
    for part in opened.iter_batches(_ROWS, row_groups=groups, use_threads=False):
        size += part.nbytes
        if size > LARGEST:
            raise DamagedError(f"{file} is damaged: more than {LARGEST >> 20} MiB of rows when unpacked.")
        parts.append(part)
    return pa.Table.from_batches(parts, opened.schema_arrow)


def _seals(schema: pa.Schema) -> list[Seal]:
    found = []
    for run, (model, number), samples, rows, good, digest, maps in json.loads((schema.metadata or {})[_KEY]):
        if not all(type(one) is int and 0 <= one < _MOST for one in (model, number, rows, good)):
            raise ValueError("a seal whose numbers are none")
        if not all(type(one) is str for one in (run, digest, maps)):
            raise ValueError("a seal whose digests are none")
        known = {int(index): one for index, one in samples.items()}
        found.append(Seal(run, (model, number), known, rows, good, digest, maps))
    return found


def _checked(table: pa.Table, schema: pa.Schema, digest: str | None) -> pa.Table:
    if not table.schema.equals(schema) or digest not in (None, content(table)):
        raise ValueError("its content is not what was written")
    return table.replace_schema_metadata(None)


def _guarded(file: Path, read: Any) -> Any:
    try:
        return read()
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file)) from error
    except DamagedError:
        raise
    except Exception as error:  # a damaged file may fail anywhere in the library
        if is_of_the_machine(error):
            raise
        raise DamagedError(f"{file} is damaged.") from error


def _bytes(column: pa.Array) -> Iterator[bytes]:
    if pa.types.is_list(column.type):
        yield from _bytes(pc.list_value_length(column))
        yield from _bytes(pc.list_flatten(column))
    elif pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        yield column.is_valid().to_numpy(zero_copy_only=False).tobytes()
        yield column.fill_null(0).to_numpy(zero_copy_only=False).tobytes()
    else:
        yield repr(column.to_pylist()).encode()
