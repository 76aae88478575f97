"""The folder of a benchmark: a record of what was run, rows chunk by chunk, maps for the report, all rows merged."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from captum_astro.evaluation.run.rows import MAPS, SCHEMA, MapRow, Row, map_table, table
from captum_astro.storage import RECORD, begin, part_of, write_whole

MERGED = "results.parquet"
Chunk = tuple[int, int]  # the model's number, and the chunk's


class BenchStore:
    """Writes and reads the files of a benchmark; each is there whole or not at all.

    Args:
        folder: The folder, ``run.json`` in it, ``chunks/``, ``maps/`` and at the end ``results.parquet``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def record(self) -> Path:
        """The file that says what was run."""
        return self.folder / RECORD

    @property
    def results(self) -> Path:
        """The file of all rows."""
        return self.folder / MERGED

    def begin(self, described: Mapping[str, Any]) -> None:
        """Write what is run, or check that the folder holds that.

        Raises:
            ValueError: If the folder holds results of something else, with what differs, or of nobody knows what.
            OSError: If it cannot be written.
        """
        if not self.record.exists() and self.chunks():
            raise ValueError(
                f"{self.folder} holds rows without {RECORD}, which says what they are of. Give another folder, or "
                f"delete this one."
            )
        begin(self.folder, described)
        for name in ("chunks", "maps"):
            (self.folder / name).mkdir(exist_ok=True)

    def has(self, chunk: Chunk) -> bool:
        """Whether a chunk is finished; a file that cannot be read is as none."""
        return _readable(self._rows(chunk), SCHEMA)

    def missing(self, chunks: Iterable[Chunk]) -> list[Chunk]:
        """Those of the chunks that are not finished."""
        return [chunk for chunk in chunks if not self.has(chunk)]

    def add(self, chunk: Chunk, rows: Sequence[Row], maps: Sequence[MapRow]) -> None:
        """Keep a chunk. The rows come last: with them it counts as finished.

        Raises:
            OSError: If it cannot be written.
        """
        if maps:
            _write(self._maps(chunk), lambda part: pq.write_table(map_table(maps), part, compression="zstd"))
        _write(self._rows(chunk), lambda part: pq.write_table(table(rows), part, compression="zstd"))

    def chunks(self) -> list[Path]:
        """The finished chunks' files, in order."""
        return [file for file in sorted((self.folder / "chunks").glob("rows-*.parquet")) if _readable(file, SCHEMA)]

    def maps(self) -> list[Path]:
        """The files of maps, in order."""
        return [file for file in sorted((self.folder / "maps").glob("maps-*.parquet")) if _readable(file, MAPS)]

    def merge(self, labels: Sequence[str], chunks: int) -> None:
        """Write all rows into one file, sorted by model, sample, method, metric and class explained.

        Chunks are sorted, so they are copied one by one: a benchmark may be larger than the memory.

        Args:
            labels: The models' names, by their number.
            chunks: How many each has.

        Raises:
            OSError: If it cannot be written.
        """
        in_order = sorted(range(len(labels)), key=lambda number: labels[number])

        def write(part: Path) -> None:
            with pq.ParquetWriter(part, SCHEMA, compression="zstd") as writer:
                for model in in_order:
                    for chunk in range(chunks):
                        writer.write_table(pq.read_table(self._rows((model, chunk)), schema=SCHEMA))

        _write(self.results, write)

    def tidy(self) -> None:
        """Remove what killed processes had begun to write; for when nobody writes any more."""
        pattern = part_of(Path("*")).name
        for folder in (self.folder, self.folder / "chunks", self.folder / "maps"):
            for file in folder.glob(pattern):
                with contextlib.suppress(OSError):
                    file.unlink()

    def _rows(self, chunk: Chunk) -> Path:
        return self.folder / "chunks" / f"rows-{chunk[0]:02d}-{chunk[1]:06d}.parquet"

    def _maps(self, chunk: Chunk) -> Path:
        return self.folder / "maps" / f"maps-{chunk[0]:02d}-{chunk[1]:06d}.parquet"


def _write(file: Path, write: Callable[[Path], object]) -> None:
    """Under a name of this process's own: one that was taken for dead, and its successor, may write the same chunk."""
    write_whole(file, write, f".{socket.gethostname()}-{os.getpid()}")


def _readable(file: Path, schema: pa.Schema) -> bool:
    try:
        return bool(pq.read_schema(file).equals(schema))
    except (OSError, ValueError):
        return False
