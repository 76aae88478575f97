"""Reading the results of a benchmark, finished or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
import pyarrow as pa

from captum_astro.caller import warn
from captum_astro.evaluation.run.rows import MAPS, SCHEMA
from captum_astro.evaluation.run.seals import DamagedError, Seal, read_unsealed
from captum_astro.evaluation.run.store import FORMAT, BenchStore

T = TypeVar("T")
R = TypeVar("R")

_TABLES = ("configuration", "versions", "models", "samples")  # of the record


@dataclass(frozen=True)
class BenchResults:
    """The results of a benchmark.

    Attributes:
        rows: As `captum_astro.evaluation.run.rows.Row`; a missing value or error is NaN or None.
        config: The record of the run: ``configuration``, ``versions``, ``models``, ``samples``.
        maps: As `captum_astro.evaluation.run.rows.MapRow`.
        finished: Whether all rows are there.
        left_out: Damaged files, which are not among the rows and maps, as sentences.
    """

    rows: pd.DataFrame
    config: dict[str, Any]
    maps: pd.DataFrame
    finished: bool
    left_out: tuple[str, ...] = ()


def read_run(folder: Path) -> BenchResults:
    """Read all rows, or those written so far.

    Args:
        folder: Folder of the benchmark.

    Warns:
        UserWarning: For each damaged file, which is left out.

    Raises:
        ValueError: If the folder contains no benchmark, its record is damaged, or no chunk is finished.
    """
    found = _read_run(BenchStore(folder))
    for sentence in found.left_out:
        warn(sentence)
    return found


def _read_run(store: BenchStore) -> BenchResults:
    folder = store.folder
    if not store.record.is_file():
        raise ValueError(f"{folder} holds no benchmark: it has no {store.record.name}. captum-astro bench makes one.")
    config = store.read_record()
    _check(config, store)
    if "format" not in config:
        return _read_first_format(store, config)
    left_out: list[str] = []
    parts = _merged(store, left_out)
    finished = parts is not None
    if parts is None:
        parts = _read(store.chunks(), store.read, left_out)
    if not parts:
        raise ValueError(" ".join([f"{folder}: no chunk is finished yet.", *left_out]))
    return BenchResults(
        rows=_frame((rows for _, rows in parts), SCHEMA),
        config=config,
        maps=_frame(_read([seal for seal, _ in parts], store.read_maps, left_out), MAPS),
        finished=finished,
        left_out=tuple(left_out),
    )


def _check(config: dict[str, Any], store: BenchStore) -> None:
    if config.get("format", FORMAT) != FORMAT:
        raise ValueError(
            f"{store.folder} holds a benchmark of another version of captum-astro (format {config['format']!r}, not "
            f"{FORMAT}). Read it with the version that wrote it."
        )
    wrong = [name for name in _TABLES if not isinstance(config.get(name, {}), dict)]
    if wrong:
        raise ValueError(f"{store.record} is damaged: {wrong[0]} is no object. Run captum-astro bench in a new folder.")


def _merged(store: BenchStore, left_out: list[str]) -> list[tuple[Seal, pa.Table]] | None:
    try:
        return list(store.read_merged())
    except FileNotFoundError:
        return None
    except DamagedError as error:
        left_out.append(f"{error} The chunks were read instead; captum-astro bench, run again, makes it again.")
        return None


def _read(names: Iterable[T], read: Callable[[T], R], left_out: list[str]) -> list[R]:
    def readable(name: T) -> list[R]:
        try:
            return [read(name)]
        except DamagedError as error:
            left_out.append(f"{error} It is left out; captum-astro bench, run again, makes it again.")
            return []

    return [found for name in names for found in readable(name)]


def _read_first_format(store: BenchStore, config: dict[str, Any]) -> BenchResults:
    """A folder of an earlier version, whose rows do not say what they are of."""
    finished = store.results.is_file()
    left_out: list[str] = []
    files = [store.results] if finished else [store.rows_file(chunk) for chunk in store.chunks()]
    rows = _read(files, lambda file: read_unsealed(file, SCHEMA), left_out)
    if not rows:
        raise ValueError(" ".join([f"{store.folder}: no chunk is finished yet.", *left_out]))
    files = sorted(store.folder.glob("maps/maps-*.parquet"))
    maps = _read(files, lambda file: read_unsealed(file, MAPS), left_out)
    return BenchResults(_frame(rows, SCHEMA), config, _frame(maps, MAPS), finished, tuple(left_out))


def _frame(tables: Iterable[pa.Table], schema: pa.Schema) -> pd.DataFrame:
    found: pd.DataFrame = pa.concat_tables([*tables, schema.empty_table()]).to_pandas()
    return found
