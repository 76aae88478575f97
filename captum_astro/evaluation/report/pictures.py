"""The stored maps as small images inside a page, and the selection of samples."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from captum_astro import viz
from captum_astro.data.image_error import ImageError
from captum_astro.data.images import open_encoded
from captum_astro.evaluation.report.grid import number
from captum_astro.evaluation.run.examples import IMAGE_SIDE
from captum_astro.metrics.registry import metric_named

LARGE, SMALL = 224, 160  # pixels on the longer side
CASES = 3
_CHOSEN_BY = ("energy inside", "mIoU", "AOPC", "positive AUC", "Spearman", "SaCo")


@dataclass(frozen=True)
class Picture:
    """A method's map over its image: a data URL, and the method's score; no URL if there is no map."""

    method: str
    address: str | None
    note: str


@dataclass(frozen=True)
class Example:
    """A sample: its name, its classes, and its images, the input first."""

    name: str
    note: str
    pictures: list[Picture]


@dataclass(frozen=True)
class Examples:
    """The selected samples, and how they were selected; ``best`` and ``worst`` are empty if there is no score."""

    metric: str
    explained: str
    method: str
    best: list[Example]
    worst: list[Example]
    others: list[Example]


def examples(
    maps: pd.DataFrame, rows: pd.DataFrame, method: str, pictures: int, order: Sequence[str] = ()
) -> Examples | None:
    """The stored samples of one model: best and worst by a method's score, then others.

    Args:
        maps: As `captum_astro.evaluation.run.rows.MapRow`, of one model.
        rows: As `captum_astro.evaluation.run.rows.Row`, of the same model.
        method: The method whose scores are used for the selection.
        pictures: Approximate number of images besides the best and the worst cases.
        order: The methods in the order in which their maps are shown; others come after them.

    Returns:
        None if no maps were stored.
    """
    drawn = maps[maps["method"] != "input"]
    if drawn.empty:
        return None
    kinds = list(pd.unique(drawn["explained"]))
    explained = "predicted" if "predicted" in kinds else str(kinds[0])
    drawn = drawn[drawn["explained"] == explained]
    kept = np.sort(pd.unique(maps["sample"]))
    rows = rows[rows["sample"].isin(kept)]
    metric, sorted_samples = _order(rows, method, explained)
    cases = min(CASES, len(sorted_samples) // 2)
    best, worst = sorted_samples[:cases], sorted_samples[len(sorted_samples) - cases :]
    chosen = [*best, *worst]
    methods = sorted(pd.unique(drawn["method"]), key=lambda name: order.index(name) if name in order else len(order))
    rest = [sample for sample in kept if sample not in chosen][: max(0, pictures // (len(methods) + 1))]
    panes = dict(list(pd.concat([maps[maps["method"] == "input"], drawn]).groupby("sample")))
    values = rows[(rows["metric"] == metric) & (rows["explained"] == explained)]
    notes = {(row.sample, row.method): row for row in values.itertuples()}

    def example(sample: Any, size: int) -> Example:
        own = panes[sample]
        inputs = own[own["method"] == "input"]
        image = _image(inputs.iloc[0]) if len(inputs) else None
        found = [Picture("input", _address(image, None, size), "")] if image is not None else []
        for name in methods:
            mine = own[own["method"] == name]
            values = _values(mine.iloc[0]) if len(mine) else None
            found.append(
                Picture(
                    name,
                    _address(image, values, size) if values is not None else None,
                    _note(notes.get((sample, name)), metric),
                )
            )
        classes = _classes(inputs.iloc[0]) if len(inputs) else ""
        return Example(str(own["name"].iloc[0]), classes, found)

    return Examples(
        metric=metric,
        explained=explained,
        method=method,
        best=[example(sample, LARGE) for sample in best],
        worst=[example(sample, LARGE) for sample in reversed(worst)],
        others=[example(sample, SMALL) for sample in rest],
    )


def _order(rows: pd.DataFrame, method: str, explained: str) -> tuple[str, list[Any]]:
    """The metric used for the selection, and the samples with a value for it, best first."""
    own = rows[(rows["method"] == method) & (rows["explained"] == explained) & rows["value"].notna()]
    for metric in _CHOSEN_BY:
        table = own[own["metric"] == metric]
        if len(table) > 1:
            signed = table["value"].to_numpy(np.float64) * metric_named(metric).direction
            return metric, list(table["sample"].to_numpy()[np.argsort(-signed, kind="stable")])
    return "", []


def _classes(row: pd.Series[Any]) -> str:
    """The predicted and the true class, as far as they are known."""
    predicted, true = (row[name] if isinstance(row.get(name), str) else None for name in ("predicted", "true"))
    if predicted is not None and predicted == true:
        return f"predicted and true class: {predicted}"
    known = [f"{word} class: {one}" for word, one in (("predicted", predicted), ("true", true)) if one is not None]
    return "; ".join(known)


def _note(row: Any, metric: str) -> str:
    if row is None:
        return ""
    if math.isnan(row.value):
        return "failed" if isinstance(row.error, str) else "not defined"
    info = metric_named(metric)
    return number(row.value, info) + (" %" if info.percent else "")


def _image(row: pd.Series[Any]) -> Image.Image | None:
    try:
        return open_encoded(row["data"], str(row["name"]), IMAGE_SIDE**2)
    except ImageError:
        return None


def _values(row: pd.Series[Any]) -> NDArray[np.float64] | None:
    if min(row["height"], row["width"]) < 1 or row["height"] * row["width"] * 2 != len(row["data"]):
        return None
    values = np.frombuffer(row["data"], "<f2")
    return np.nan_to_num(values.reshape(row["height"], row["width"]).astype(np.float64), posinf=0, neginf=0)


def _address(image: Image.Image | None, values: NDArray[np.float64] | None, size: int) -> str:
    """An image, a map over it, or a map only, as the data URL of a JPEG."""
    if image is not None:
        width, height = image.size
    else:
        assert values is not None
        height, width = values.shape
    scale = size / max(width, height)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    picture = image.resize(shape, Image.Resampling.BICUBIC) if image is not None else None
    if values is not None:
        heat = _heat(values, shape)
        picture = Image.blend(picture.convert("L").convert("RGB"), heat, viz.OPACITY) if picture is not None else heat
    assert picture is not None
    held = io.BytesIO()
    picture.save(held, "JPEG", quality=78, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(held.getvalue()).decode()


def _heat(values: NDArray[np.float64], shape: tuple[int, int]) -> Image.Image:
    """A map in colours: those of `captum_astro.viz`, centred at zero if it has negative values."""
    signed = bool((values < 0).any())
    top = float(np.percentile(np.abs(values), 100 - viz.OUTLIERS)) or float(np.abs(values).max()) or 1.0
    scaled = np.clip(values / top, -1, 1)
    smooth = np.asarray(Image.fromarray(scaled.astype(np.float32)).resize(shape, Image.Resampling.BILINEAR))
    coloured = viz.colours(signed)((smooth + 1) / 2 if signed else smooth)
    return Image.fromarray((coloured[..., :3] * 255).round().astype(np.uint8))
