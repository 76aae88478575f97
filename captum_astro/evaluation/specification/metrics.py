"""The benchmark's metrics: their fixed names, which direction is better, what they need and what chance gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from captum_astro.metrics.segmentation import SegmentationCounts

Needs = Literal["label", "mask", "human"]
Kind = Literal["model", "perturbation", "segmentation", "localisation", "saco", "human"]
Pooled = Callable[[NDArray[Any]], NDArray[np.float64]]


@dataclass(frozen=True)
class MetricInfo:
    """What a table or a figure must know of a metric.

    Attributes:
        name: As in the rows.
        direction: 1 where higher is better, -1 where lower is.
        kind: What is computed together.
        needs: What the data must have, besides images.
        chance: What a map without information gives, where it is one number for all data; `chance.chance` has the
            levels that follow from the data or from another method.
        percent: The papers print it as a percentage.
        pooled: A value for a set of samples from their counts ``(..., n, 6)``, as their curve holds them; None where
            the value of a set is the mean of its samples'.
        chance_metric: The metric whose values are the chance level, sample by sample.
        of_model: The value belongs to the model or the data; its method is ``-`` and so is what is explained.
        predicted_only: Defined for the predicted class alone.
    """

    name: str
    direction: Literal[1, -1]
    kind: Kind
    needs: Needs | None
    chance: float | None = None
    percent: bool = False
    pooled: Pooled | None = None
    chance_metric: str | None = None
    of_model: bool = False
    predicted_only: bool = False


def pooled_accuracy(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Pixel accuracy of a set, ``(..., n, 6)`` to ``(...)``: correct pixels over labelled pixels.

    Args:
        counts: Of each sample, as `SegmentationCounts.table`: correct, labelled, intersection of background and of
            object, their unions.

    Example:
        >>> float(pooled_accuracy(np.array([[3, 4, 2, 1, 3, 2], [1, 4, 1, 0, 3, 2]])))
        0.5
    """
    return _of_all(counts).pixel_accuracy().numpy()


def pooled_iou(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Mean IoU of a set, ``(..., n, 6)`` to ``(...)``: each class's over all pixels, then the mean of the two.

    Args:
        counts: As for `pooled_accuracy`.

    Example:
        >>> float(pooled_iou(np.array([[3, 4, 2, 1, 3, 2], [1, 4, 1, 0, 3, 2]])))
        0.375
    """
    return _of_all(counts).mean_iou().numpy()


def _of_all(counts: NDArray[Any]) -> SegmentationCounts:
    return SegmentationCounts.from_table(torch.as_tensor(np.asarray(counts, np.float64).sum(-2)))


METRICS: dict[str, MetricInfo] = {
    metric.name: metric
    for metric in (
        MetricInfo("accuracy", 1, "model", "label", percent=True, of_model=True),
        MetricInfo("positive AUC", -1, "perturbation", "label", percent=True),
        MetricInfo("negative AUC", 1, "perturbation", "label", percent=True),
        MetricInfo("AOPC", 1, "perturbation", None),
        MetricInfo("LOdds", -1, "perturbation", None),
        MetricInfo("pixel accuracy", 1, "segmentation", "mask", chance=0.5, percent=True, pooled=pooled_accuracy),
        MetricInfo("mIoU", 1, "segmentation", "mask", percent=True, pooled=pooled_iou),
        MetricInfo("mAP", 1, "segmentation", "mask", chance=0.5, percent=True),
        MetricInfo("pointing game", 1, "localisation", "mask", percent=True, chance_metric="object share"),
        MetricInfo("energy inside", 1, "localisation", "mask", percent=True, chance_metric="object share"),
        MetricInfo("object share", 1, "localisation", "mask", percent=True, of_model=True),
        MetricInfo("SaCo", 1, "saco", None, chance=0.0, predicted_only=True),
        MetricInfo("Spearman", 1, "human", "human", chance=0.0),
        MetricInfo("Dice", 1, "human", "human", chance=0.1),  # a tenth of the pixels is taken
        MetricInfo("IoU", 1, "human", "human", chance=0.1 / 1.9),
        MetricInfo("SSIM", 1, "human", "human"),
    )
}


def info_of(name: str) -> MetricInfo:
    """What is known of a metric; of one that is not in `METRICS`, that higher is better."""
    return METRICS.get(name) or MetricInfo(name, 1, "model", None)


def metrics_of(words: str | Sequence[str]) -> tuple[str, ...]:
    """Metrics by name, in the order of `METRICS`; upper and lower case are one.

    Args:
        words: Names, as a list or with commas, or ``all``. ``AUC`` is both directions; a kind (``segmentation``, ...)
            is all of its metrics.

    Raises:
        ValueError: If a name is unknown, or there is none.

    Example:
        >>> metrics_of("auc, saco")
        ('positive AUC', 'negative AUC', 'SaCo')
    """
    given = words.split(",") if isinstance(words, str) else list(words)
    groups: dict[str, list[str]] = {"all": list(METRICS), "auc": ["positive AUC", "negative AUC"]}
    for metric in METRICS.values():
        groups.setdefault(metric.kind, []).append(metric.name)
        groups[metric.name.lower()] = [metric.name]
    chosen: set[str] = set()
    for word in given:
        if word.strip().lower() not in groups:
            raise ValueError(f"There is no metric {word.strip()!r}. Metrics: {', '.join(METRICS)}, or all.")
        chosen |= set(groups[word.strip().lower()])
    return tuple(name for name in METRICS if name in chosen)


def available(wanted: Iterable[str], has: set[Needs]) -> tuple[tuple[str, ...], dict[str, Needs]]:
    """The metrics that the data can give, and what the others lack.

    Args:
        wanted: Names.
        has: What the samples have.
    """
    names = list(wanted)
    lacking = {name: need for name in names if (need := METRICS[name].needs) is not None and need not in has}
    return tuple(name for name in names if name not in lacking), lacking
