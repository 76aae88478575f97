"""Scores of a search or an evaluation, stored batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from torch import nn

from captum_astro.evaluation.run.seals import (
    DamagedError,
    Seal,
    content,
    read_sealed,
    run_digest,
    sealed,
    write_table,
)
from captum_astro.evaluation.vita.results import Results
from captum_astro.evaluation.vita.settings import Setting
from captum_astro.storage import begin, weights_digest, write_whole

_SCHEMA = pa.schema(
    {
        "sample": pa.int64(),
        "name": pa.string(),
        "digest": pa.string(),
        "setting": pa.int64(),
        "method": pa.string(),
        "control": pa.string(),
        "width": pa.float64(),
        "metric": pa.string(),
        "value": pa.float64(),
    }
)


class Store:
    """Results in a folder, one sealed file per batch, each written atomically; or in memory.

    Args:
        folder: The folder; None for memory.
        model: Its weights are part of what identifies the run.
        settings: The settings to try.
        run: Everything else that the results depend on.

    Raises:
        ValueError: If the folder holds results of another run.
        OSError: If it cannot be written.
    """

    def __init__(self, folder: Path | None, model: nn.Module, settings: Sequence[Setting], run: dict[str, Any]) -> None:
        self._folder, self._settings = folder, list(settings)
        self._tables: dict[int, pd.DataFrame] = {}
        if folder is None:
            return
        described = {
            "model": type(model).__name__,
            "weights": weights_digest(model),
            "settings": [{"layer": s.layer, "token": s.token, **asdict(s.modulation)} for s in settings],
            **run,
        }
        begin(folder, described)
        self._run = run_digest(described, ())

    def has(self, batch: int, digests: Sequence[str]) -> bool:
        """Whether a batch of samples is finished; a damaged or a shorter one, or one of another run, is not.

        Raises:
            ValueError: If other samples were scored there.
        """
        if self._folder is None:
            return False
        try:
            seal, _ = self._read(batch)
        except (FileNotFoundError, DamagedError):
            return False
        before = [digest for _, digest in sorted(seal.samples.items())]
        if before[: len(digests)] != list(digests)[: len(before)]:
            raise ValueError(f"{self._folder} holds results of other samples. Choose another one, or delete it.")
        return len(before) == len(digests)

    def add(self, batch: int, table: pd.DataFrame) -> None:
        """Store the scores of a batch."""
        if self._folder is None:
            self._tables[batch] = table
            return
        kept = pa.Table.from_pandas(table, _SCHEMA, preserve_index=False).replace_schema_metadata(None)
        samples = dict(zip(table["sample"].tolist(), table["digest"].tolist(), strict=True))
        seal = Seal(self._run, (0, batch), samples, len(kept), len(kept), content(kept), maps="")
        write_whole(self._file(batch), lambda to: write_table(kept.cast(sealed(_SCHEMA, [seal])), to))

    def results(self, batches: int) -> Results:
        """The scores of the first batches, up to a number."""
        read = (self._tables[n] if self._folder is None else self._read(n)[1].to_pandas() for n in range(batches))
        return Results.of(pd.concat(list(read), ignore_index=True), self._settings)

    def _read(self, batch: int) -> tuple[Seal, pa.Table]:
        """The seal and the scores of a batch.

        Raises:
            DamagedError: If they are not what was written, or of another batch or run.
            FileNotFoundError: If it is not finished.
        """
        file = self._file(batch)
        parts = list(read_sealed(file, _SCHEMA))
        if [(seal.run, seal.chunk) for seal, _ in parts] != [(self._run, (0, batch))]:
            raise DamagedError(f"{file} holds other scores.")
        return parts[0]

    def _file(self, batch: int) -> Path:
        assert self._folder is not None
        return self._folder / f"scores-{batch:06d}.parquet"
