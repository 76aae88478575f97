"""The folder of a benchmark: the record of the run, rows chunk by chunk, maps for the report, all rows merged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from captum_astro.evaluation.run.circumstances import NAMES
from captum_astro.evaluation.run.rows import MAPS, SCHEMA, MapRow, Row, good_rows, map_table, table
from captum_astro.evaluation.run.seals import (
    OPTIONS,
    Chunk,
    DamagedError,
    Seal,
    content,
    read_sealed,
    read_unsealed,
    run_digest,
    sealed,
    seals_of,
    write_table,
)
from captum_astro.storage import RECORD, begin, read_record, write_whole

MERGED = "results.parquet"
FORMAT = 3  # of the folder; in the first, rows did not say what they were computed from, then images not their classes
MADE = "made"
# may change in a run: it does not change what is computed, or only the last digits
FREE = ("configuration.batch_size", "configuration.compile", MADE, *(f"{MADE}.{name}" for name in NAMES))


class BenchStore:
    """Writes and reads the files of a benchmark, each of them atomically.

    Args:
        folder: The folder, with ``run.json``, ``chunks/``, ``maps/`` and at the end ``results.parquet``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._described: Mapping[str, Any] = {}

    @property
    def record(self) -> Path:
        """The file with the record of the run."""
        return self.folder / RECORD

    @property
    def results(self) -> Path:
        """The file with all rows."""
        return self.folder / MERGED

    @property
    def run(self) -> str:
        """The digest of the run whose rows are read and written."""
        return run_digest(self._described, FREE)

    def begin(self, described: Mapping[str, Any]) -> None:
        """Write the record of the run, or check that the folder belongs to the same run.

        Raises:
            ValueError: If the folder holds results of a different run, listing the differences, or of an unknown run.
            OSError: If it cannot be written.
        """
        if not self.record.exists():
            if any((self.folder / "chunks").glob("rows-*.parquet")):
                raise ValueError(
                    f"{self.folder} holds rows without {RECORD}, which says what they are of. Choose another folder, "
                    f"or delete this one."
                )
        elif (found := read_record(self.record)).get("format") != described.get("format") and "configuration" in found:
            raise ValueError(
                f"{self.folder} holds a benchmark of another version of captum-astro, which stored less about its rows "
                f"or stored it differently. Choose another folder, or delete this one."
            )
        self.keep_record(described)
        for name in ("chunks", "maps"):
            (self.folder / name).mkdir(exist_ok=True)

    def keep_record(self, described: Mapping[str, Any]) -> None:
        """Write the record if it is missing.

        Raises:
            ValueError: If it is that of a different run.
            OSError: If it cannot be written.
        """
        begin(self.folder, described, free=FREE)
        self._described = described

    def read_record(self) -> dict[str, Any]:
        """The record; what is read from now on must belong to it.

        Raises:
            ValueError: If it is damaged.
            OSError: If it cannot be read.
        """
        found = read_record(self.record)
        self._described = found
        return found

    def rows_file(self, chunk: Chunk) -> Path:
        """The file of a chunk's rows."""
        return self.folder / "chunks" / f"rows-{chunk[0]:02d}-{chunk[1]:06d}.parquet"

    def maps_file(self, chunk: Chunk) -> Path:
        """The file of a chunk's maps."""
        return self.folder / "maps" / f"maps-{chunk[0]:02d}-{chunk[1]:06d}.parquet"

    def add(self, chunk: Chunk, rows: Sequence[Row], maps: Sequence[MapRow], samples: Mapping[int, str]) -> None:
        """Store a chunk. The rows are written last and mark it as finished.

        Args:
            chunk: The chunk.
            rows: Its rows.
            maps: Its maps.
            samples: The digest of each of its samples, by index.

        Raises:
            OSError: If it cannot be written.
        """
        drawn, kept = map_table(maps), table(rows)
        if maps:
            write_whole(self.maps_file(chunk), lambda part: write_table(drawn, part))
        digest = content(drawn) if maps else ""
        seal = Seal(self.run, chunk, dict(samples), len(rows), good_rows(rows), content(kept), digest)
        written = kept.cast(sealed(SCHEMA, [seal]))
        write_whole(self.rows_file(chunk), lambda part: write_table(written, part))

    def read(self, chunk: Chunk) -> tuple[Seal, pa.Table]:
        """The seal and the rows of a chunk.

        Raises:
            DamagedError: If the file is damaged, or another chunk's.
            FileNotFoundError: If it is not finished.
        """
        file = self.rows_file(chunk)
        parts = list(read_sealed(file, SCHEMA))
        if [seal.chunk for seal, _ in parts] != [chunk]:
            raise DamagedError(f"{file} is damaged: it holds another chunk.")
        [(seal, rows)] = parts
        if seal.run != self.run:
            raise DamagedError(f"{file} belongs to another run.")
        return seal, rows

    def read_maps(self, seal: Seal) -> pa.Table:
        """The maps of a chunk.

        Raises:
            DamagedError: If the file is damaged or missing.
        """
        if not seal.maps:
            return MAPS.empty_table()
        file = self.maps_file(seal.chunk)
        try:
            return read_unsealed(file, MAPS, seal.maps)
        except FileNotFoundError as error:
            raise DamagedError(f"{file} is missing.") from error

    def check(self, chunk: Chunk) -> Seal:
        """The seal of a chunk whose files are sound.

        Raises:
            DamagedError: If a file is damaged, or another chunk's.
            FileNotFoundError: If it is not finished.
        """
        seal, _ = self.read(chunk)
        self.read_maps(seal)
        return seal

    def chunks(self) -> list[Chunk]:
        """The chunks that have a file of rows, in order, whatever it holds."""
        names = (file.stem.split("-")[1:] for file in sorted((self.folder / "chunks").glob("rows-??-??????.parquet")))
        return [(int(model), int(number)) for model, number in names if (model + number).isdecimal()]

    def read_merged(self) -> Iterator[tuple[Seal, pa.Table]]:
        """The chunks in the file with all rows, one by one.

        Raises:
            DamagedError: If it is damaged, or another run's.
            FileNotFoundError: If there is none.
        """
        for seal, rows in read_sealed(self.results, SCHEMA):
            if seal.run != self.run:
                raise DamagedError(f"{self.results} belongs to another run.")
            yield seal, rows

    def merge(self, labels: Sequence[str], chunks: int) -> list[Seal]:
        """Write all rows into one file, sorted by model, sample, method, metric and explained class.

        Chunks are sorted, so they are copied one by one: a benchmark may be larger than memory.

        Args:
            labels: The models' names, by index.
            chunks: The number of chunks of each model.

        Returns:
            What was merged.

        Raises:
            DamagedError: If a chunk is damaged.
            OSError: If one is missing, or the file cannot be written.
        """
        models = sorted(range(len(labels)), key=lambda number: labels[number])
        in_order = [(model, chunk) for model in models for chunk in range(chunks)]
        seals = [seal for chunk in in_order for seal in seals_of(self.rows_file(chunk))]

        def write(part: Path) -> None:
            schema = sealed(SCHEMA, seals)
            with pq.ParquetWriter(part, schema, **OPTIONS) as writer:
                for chunk, seal in zip(in_order, seals, strict=True):
                    found, rows = self.read(chunk)
                    if found != seal:  # another process has replaced it
                        raise DamagedError(f"{self.rows_file(chunk)} was changed while it was read.")
                    if len(rows):
                        writer.write_table(rows.cast(schema), len(rows))

        write_whole(self.results, write)
        return seals
