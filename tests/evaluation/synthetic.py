"""A synthetic run: rows and maps as written by a benchmark."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from captum_astro.evaluation.run.failures import Failure
from captum_astro.evaluation.run.rows import MAPS, SCHEMA, MapRow, Row, map_table, table
from captum_astro.metrics.registry import all_metrics

NO_MAP = Failure("ValueError", "no map", "method")
METHODS = ("AttentionRollout", "LRP", "Random", "VTranM")


def rows(
    samples: int = 12,
    methods: tuple[str, ...] = METHODS,
    models: tuple[str, ...] = ("vit",),
    metrics: tuple[str, ...] = tuple(all_metrics()),
    levels: int = 21,
    failing: tuple[str, int] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Later methods are better; ``failing`` names a method and a sample that end in an error."""
    rng = np.random.default_rng(seed)
    found = [
        row
        for model in models
        for sample in range(samples)
        for metric in metrics
        for row in _of_sample(rng, model, sample, metric, methods, levels, failing)
    ]
    return table(found).to_pandas()


def maps(
    samples: int = 8, methods: tuple[str, ...] = METHODS, models: tuple[str, ...] = ("vit",), side: int = 56
) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:side, :side] / side
    found = []
    for model in models:
        for sample in range(samples):
            name = f"image-{sample}.png"
            picture = np.stack([x, y, np.full_like(x, sample / samples)], -1) * 255
            held = io.BytesIO()
            Image.fromarray(picture.astype(np.uint8)).resize((224, 224)).save(held, "JPEG")
            classes = "3 three", "3 three" if sample % 2 else "8 eight"
            found.append(MapRow(sample, name, model, "input", "-", 224, 224, held.getvalue(), *classes))
            for method in methods:
                a, b = rng.uniform(0.2, 0.8, 2)
                values = np.exp(-((x - a) ** 2 + (y - b) ** 2) / 0.03) - (0.3 if method == "LRP" else 0)
                data = (values + 0.05 * rng.random((side, side))).astype("<f2").tobytes()
                found.append(MapRow(sample, name, model, method, "predicted", side, side, data))
    return map_table(found).to_pandas()


def write(folder: Path, rows: pd.DataFrame, maps: pd.DataFrame, config: dict[str, Any], finished: bool = True) -> Path:
    """The files of a run."""
    (folder / "chunks").mkdir(parents=True)
    (folder / "maps").mkdir()
    (folder / "run.json").write_text(json.dumps(config))
    kept = pa.Table.from_pandas(rows, SCHEMA, preserve_index=False)
    pq.write_table(kept, folder / ("results.parquet" if finished else "chunks/rows-00-000000.parquet"))
    drawn = pa.Table.from_pandas(maps, MAPS, preserve_index=False)
    pq.write_table(drawn, folder / "maps/maps-00-000000.parquet")
    return folder


def renamed(table: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """A copy with other names of methods, models or samples."""
    columns = [name for name in ("name", "model", "method") if name in table]
    return table.assign(**{name: table[name].replace(names) for name in columns})


def _of_sample(
    rng: np.random.Generator, model: str, sample: int, metric: str, methods: tuple[str, ...], levels: int,
    failing: tuple[str, int] | None,
) -> list[Row]:  # fmt: skip
    info, name = all_metrics()[metric], f"image-{sample}.png"
    if info.of_model:
        value = float(rng.random() < 0.8) if metric == "accuracy" else 0.1 + 0.2 * float(rng.random())
        return [Row(sample, name, model, "-", metric, "-", value)]
    found = []
    for explained in ("predicted",) if info.predicted_only else ("predicted", "true"):
        for place, method in enumerate(methods):
            if failing == (method, sample):
                found.append(Row(sample, name, model, method, metric, explained, failure=NO_MAP))
                continue
            quality = (place + 1) / len(methods) + 0.2 * rng.normal()
            value, curve = _value(rng, metric, quality, levels)
            found.append(Row(sample, name, model, method, metric, explained, value, curve))
    return found


def _value(rng: np.random.Generator, metric: str, quality: float, levels: int) -> tuple[float, list[float] | None]:
    share = 1 / (1 + np.exp(-2 * quality))
    if metric in ("positive AUC", "negative AUC"):
        end = (1 - share if metric == "positive AUC" else share) * levels
        curve = [float(level < end) for level in range(levels)]
        return (sum(curve) - (curve[0] + curve[-1]) / 2) / (levels - 1), curve
    if metric == "AOPC":
        curve = np.exp(-np.linspace(0, 4 * share, levels)).tolist()
        return curve[0] - float(np.mean(curve[1:])), curve
    if metric in ("pixel accuracy", "mIoU"):
        labelled = int(rng.integers(500, 4000))
        object_ = labelled // 5
        inter, back = int(share * object_), int(share * (labelled - object_))
        union, union_back = object_ + labelled - object_ - back, labelled - object_ + object_ - inter
        counts = [inter + back, labelled, back, inter, union_back, union]
        accuracy, iou = (inter + back) / labelled, (inter / union + back / union_back) / 2
        return (accuracy if metric == "pixel accuracy" else iou), [float(count) for count in counts]
    if metric == "LOdds":
        return -3 * share, None
    if metric == "pointing game":
        return float(rng.random() < share), None
    return float(share), None
