"""The benchmark's rows: one per sample, model, method, metric and explained class."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from captum_astro.evaluation.run.failures import UNDEFINED, Failure

SCHEMA = pa.schema(
    [
        pa.field("sample", pa.int64(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("explained", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("curve", pa.list_(pa.float64())),
        pa.field("error", pa.string()),
    ]
)
MAPS = pa.schema(
    [
        pa.field("sample", pa.int64(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("explained", pa.string(), nullable=False),
        pa.field("height", pa.int64(), nullable=False),
        pa.field("width", pa.int64(), nullable=False),
        pa.field("data", pa.binary(), nullable=False),
        pa.field("predicted", pa.string()),
        pa.field("true", pa.string()),
    ]
)
ORDER = ("model", "sample", "method", "metric", "explained")


class Row(NamedTuple):
    """One value of one sample.

    Attributes:
        sample: Its index in the dataset.
        name: Its name there.
        model: The model.
        method: The method, with its options; ``-`` if the value belongs to the model or the data.
        metric: One of `captum_astro.metrics.registry.all_metrics`.
        explained: ``predicted``, ``true`` or ``-``.
        value: None if it is undefined, or could not be computed.
        curve: The curve behind the value, if there is one.
        failure: Why there is no value; in the table the column ``error``, as text: ``Type: message``.
    """

    sample: int
    name: str
    model: str
    method: str
    metric: str
    explained: str
    value: float | None = None
    curve: Sequence[float] | None = None
    failure: Failure | None = None


class MapRow(NamedTuple):
    """One map that is stored for the report, or the image itself (method ``input``, explained ``-``).

    Attributes:
        sample: Its index.
        name: Its name.
        model: The model.
        method: The method, or ``input``.
        explained: ``predicted``, ``true`` or ``-``.
        height: Height in pixels.
        width: Width in pixels.
        data: float16 values, little-endian, row by row; for ``input`` a JPEG.
        predicted: Index and name of the predicted class, for ``input``; otherwise None.
        true: The same of the true class; None if it is unknown.
    """

    sample: int
    name: str
    model: str
    method: str
    explained: str
    height: int
    width: int
    data: bytes
    predicted: str | None = None
    true: str | None = None


def table(rows: Iterable[Row]) -> pa.Table:
    """Rows as a table, sorted by `ORDER`; values that are not finite are null.

    Example:
        >>> table([Row(0, "a", "vit", "LRP", "SaCo", "predicted", float("nan"))])["value"].to_pylist()
        [None]
    """
    ordered = sorted(rows, key=lambda row: tuple(getattr(row, name) for name in ORDER))
    return _columns([_clean(row) for row in ordered], SCHEMA)


def map_table(rows: Iterable[MapRow]) -> pa.Table:
    """Stored maps as a table."""
    return _columns(rows, MAPS)


def good_rows(rows: Sequence[Row]) -> int:
    """How many rows have no failure: of those of methods, or of all if there are none.

    Example:
        >>> none = Failure("ValueError", "no map", "method")
        >>> of_model = Row(0, "a", "vit", "-", "accuracy", "-", 1.0)
        >>> good_rows([of_model]), good_rows([of_model, Row(0, "a", "vit", "LRP", "SaCo", "predicted", failure=none)])
        (1, 0)
    """
    own = [row for row in rows if row.method != "-"] or rows
    return sum(row.failure is None or row.failure.type == UNDEFINED for row in own)


def _clean(row: Row) -> tuple[Any, ...]:
    value = row.value if row.value is not None and math.isfinite(row.value) else None
    failure = None if row.failure is None else str(row.failure)
    return (*row[:-3], value, row.curve, failure)


def _columns(rows: Iterable[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [() for _ in schema]
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
