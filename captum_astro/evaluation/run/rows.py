"""The benchmark's rows: one for each sample, model, method, metric and class explained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pyarrow as pa

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
    ]
)
ORDER = ("model", "sample", "method", "metric", "explained")


class Row(NamedTuple):
    """One figure of one sample.

    Attributes:
        sample: Its number in the dataset.
        name: Its name there.
        model: The model.
        method: The method, with its options; ``-`` where the figure belongs to the model or the data.
        metric: One of `captum_astro.evaluation.specification.metrics.METRICS`.
        explained: ``predicted``, ``true`` or ``-``.
        value: None where it is not defined, or could not be computed.
        curve: What the value was drawn from, where there is such a thing.
        error: Why there is no value: ``Type: message``.
    """

    sample: int
    name: str
    model: str
    method: str
    metric: str
    explained: str
    value: float | None = None
    curve: Sequence[float] | None = None
    error: str | None = None


class MapRow(NamedTuple):
    """One map that is kept for the report, or the image itself (method ``input``, explained ``-``).

    Attributes:
        sample: Its number.
        name: Its name.
        model: The model.
        method: The method, or ``input``.
        explained: ``predicted``, ``true`` or ``-``.
        height: In pixels.
        width: In pixels.
        data: float16 values, little-endian, row by row; for ``input`` a JPEG.
    """

    sample: int
    name: str
    model: str
    method: str
    explained: str
    height: int
    width: int
    data: bytes


def table(rows: Iterable[Row]) -> pa.Table:
    """Rows in their order of `ORDER`, as a table; values that are not finite are null.

    Example:
        >>> table([Row(0, "a", "vit", "LRP", "SaCo", "predicted", float("nan"))])["value"].to_pylist()
        [None]
    """
    ordered = sorted(rows, key=lambda row: tuple(getattr(row, name) for name in ORDER))
    return _columns([_clean(row) for row in ordered], SCHEMA)


def map_table(rows: Iterable[MapRow]) -> pa.Table:
    """Kept maps as a table."""
    return _columns(rows, MAPS)


def _clean(row: Row) -> Row:
    return row if row.value is None or math.isfinite(row.value) else row._replace(value=None)


def _columns(rows: Iterable[NamedTuple], schema: pa.Schema) -> pa.Table:
    columns = list(zip(*rows, strict=True)) or [() for _ in schema]
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )
