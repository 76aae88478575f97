"""The folder of a benchmark: the record of the run, rows chunk by chunk, maps for the report, all rows merged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from captum_astro.evaluation.run.rows import MAPS, SCHEMA, MapRow, Row, map_table, table
from captum_astro.storage import PART, RECORD, begin, write_whole

MERGED = "results.parquet"
Chunk = tuple[int, int]  # the index of the model, and of the chunk


class BenchStore:
    """Writes and reads the files of a benchmark, each of them atomically.

    Args:
        folder: The folder, with ``run.json``, ``chunks/``, ``maps/`` and at the end ``results.parquet``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def record(self) -> Path:
        """The file with the record of the run."""
        return self.folder / RECORD

    @property
    def results(self) -> Path:
        """The file with all rows."""
        return self.folder / MERGED

    def begin(self, described: Mapping[str, Any]) -> None:
        """Write the record of the run, or check that the folder belongs to the same run.

        Raises:
            ValueError: If the folder holds results of a different run, listing the differences, or of an unknown run.
            OSError: If it cannot be written.
        """
        if not self.record.exists() and self.chunks():
            raise ValueError(
                f"{self.folder} holds rows without {RECORD}, which says what they are of. Choose another folder, or "
                f"delete this one."
            )
        begin(self.folder, described)
        for name in ("chunks", "maps"):
            (self.folder / name).mkdir(exist_ok=True)

    def has(self, chunk: Chunk) -> bool:
        """Whether a chunk is finished; an unreadable file does not count."""
        return _readable(self._rows(chunk), SCHEMA)

    def missing(self, chunks: Iterable[Chunk]) -> list[Chunk]:
        """Those of the chunks that are not finished."""
        return [chunk for chunk in chunks if not self.has(chunk)]

    def add(self, chunk: Chunk, rows: Sequence[Row], maps: Sequence[MapRow]) -> None:
        """Store a chunk. The rows are written last and mark it as finished.

        Raises:
            OSError: If it cannot be written.
        """
        if maps:
            write_whole(self._maps(chunk), lambda part: pq.write_table(map_table(maps), part, compression="zstd"))
        write_whole(self._rows(chunk), lambda part: pq.write_table(table(rows), part, compression="zstd"))

    def chunks(self) -> list[Path]:
        """The finished chunks' files, in order."""
        return [file for file in sorted((self.folder / "chunks").glob("rows-*.parquet")) if _readable(file, SCHEMA)]

    def maps(self) -> list[Path]:
        """The files of maps, in order."""
        return [file for file in sorted((self.folder / "maps").glob("maps-*.parquet")) if _readable(file, MAPS)]

    def merge(self, labels: Sequence[str], chunks: int) -> None:
        """Write all rows into one file, sorted by model, sample, method, metric and explained class.

        Chunks are sorted, so they are copied one by one: a benchmark may be larger than memory.

        Args:
            labels: The models' names, by index.
            chunks: The number of chunks of each model.

        Raises:
            OSError: If it cannot be written.
        """
        in_order = sorted(range(len(labels)), key=lambda number: labels[number])

        def write(part: Path) -> None:
            with pq.ParquetWriter(part, SCHEMA, compression="zstd") as writer:
                for model in in_order:
                    for chunk in range(chunks):
                        writer.write_table(pq.read_table(self._rows((model, chunk)), schema=SCHEMA))

        write_whole(self.results, write)

    def tidy(self) -> None:
        """Remove unfinished files of killed processes; call it only when nobody writes any more."""
        for folder in (self.folder, self.folder / "chunks", self.folder / "maps"):
            for file in folder.glob(f".*{PART}"):
                with contextlib.suppress(OSError):
                    file.unlink()

    def _rows(self, chunk: Chunk) -> Path:
        return self.folder / "chunks" / f"rows-{chunk[0]:02d}-{chunk[1]:06d}.parquet"

    def _maps(self, chunk: Chunk) -> Path:
        return self.folder / "maps" / f"maps-{chunk[0]:02d}-{chunk[1]:06d}.parquet"


def _readable(file: Path, schema: pa.Schema) -> bool:
    try:
        return bool(pq.read_schema(file).equals(schema))
    except (OSError, ValueError):
        return False
