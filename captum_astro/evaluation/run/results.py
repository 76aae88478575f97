"""Reading the results of a benchmark, finished or not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from captum_astro.evaluation.run.rows import MAPS, SCHEMA
from captum_astro.evaluation.run.store import BenchStore
from captum_astro.storage import read_record


@dataclass(frozen=True)
class BenchResults:
    """The results of a benchmark.

    Attributes:
        rows: As `captum_astro.evaluation.run.rows.Row`; a missing value or error is NaN or None.
        config: The record of the run: ``configuration``, ``versions``, ``models``, ``samples``.
        maps: As `captum_astro.evaluation.run.rows.MapRow`.
        finished: Whether all rows are there.
    """

    rows: pd.DataFrame
    config: dict[str, Any]
    maps: pd.DataFrame
    finished: bool


def read_run(folder: Path) -> BenchResults:
    """Read all rows, or those written so far.

    Args:
        folder: Folder of the benchmark.

    Raises:
        ValueError: If the folder contains no benchmark, or no chunk is finished.
    """
    store = BenchStore(folder)
    if not store.record.is_file():
        raise ValueError(f"{folder} holds no benchmark: it has no {store.record.name}. captum-astro bench makes one.")
    finished = store.results.is_file()
    files = [store.results] if finished else store.chunks()
    if not files:
        raise ValueError(f"{folder}: no chunk is finished yet.")
    return BenchResults(
        rows=_read(files, SCHEMA),
        config=read_record(store.record),
        maps=_read(store.maps(), MAPS),
        finished=finished,
    )


def _read(files: list[Path], schema: pa.Schema) -> pd.DataFrame:
    tables = [pq.read_table(file, schema=schema) for file in files]
    found: pd.DataFrame = pa.concat_tables([*tables, schema.empty_table()]).to_pandas()
    return found
