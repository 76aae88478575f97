"""The benchmark's metrics: their fixed names, which direction is better, what they need and what chance gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

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
        chance: What a map without information gives, in words.
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
    chance: str
    percent: bool = False
    pooled: Pooled | None = None
    chance_metric: str | None = None
    of_model: bool = False
    predicted_only: bool = False


def pooled_accuracy(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Pixel accuracy of a set, ``(..., n, 6)`` to ``(...)``: correct pixels over labelled pixels.

    Args:
        counts: Of each sample: correct, labelled, intersection of background and of object, their unions.

    Example:
        >>> float(pooled_accuracy(np.array([[3, 4, 2, 1, 3, 2], [1, 4, 1, 0, 3, 2]])))
        0.5
    """
    total = np.asarray(counts, np.float64).sum(-2)
    return _over(total[..., 0], total[..., 1])


def pooled_iou(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Mean IoU of a set, ``(..., n, 6)`` to ``(...)``: each class's over all pixels, then the mean of the two.

    Args:
        counts: As for `pooled_accuracy`.

    Example:
        >>> float(pooled_iou(np.array([[3, 4, 2, 1, 3, 2], [1, 4, 1, 0, 3, 2]])))
        0.375
    """
    total = np.asarray(counts, np.float64).sum(-2)
    return np.asarray(_over(total[..., 2:4], total[..., 4:6]).mean(-1))


def _over(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(a, b, out=np.full_like(a, np.nan), where=b > 0)


_ORDER = "any order of the pixels, so a random one: compare with the method Random"
_ALL = (
    MetricInfo("accuracy", 1, "model", "label", "1 / classes", percent=True, of_model=True),
    MetricInfo("positive AUC", -1, "perturbation", "label", _ORDER, percent=True),
    MetricInfo("negative AUC", 1, "perturbation", "label", _ORDER, percent=True),
    MetricInfo("AOPC", 1, "perturbation", None, _ORDER),
    MetricInfo("LOdds", -1, "perturbation", None, _ORDER),
    MetricInfo("pixel accuracy", 1, "segmentation", "mask", "0.5 for a coin", percent=True, pooled=pooled_accuracy),
    MetricInfo(
        "mIoU",
        1,
        "segmentation",
        "mask",
        "1/2 (s / (1 + s) + (1 - s) / (2 - s)) for a coin, with s the share of the object",
        percent=True,
        pooled=pooled_iou,
    ),
    MetricInfo("mAP", 1, "segmentation", "mask", "0.5: the mean of the two classes' shares", percent=True),
    MetricInfo("pointing game", 1, "localisation", "mask", "object share", percent=True, chance_metric="object share"),
    MetricInfo("energy inside", 1, "localisation", "mask", "object share", percent=True, chance_metric="object share"),
    MetricInfo("object share", 1, "localisation", "mask", "-", percent=True, of_model=True),
    MetricInfo("SaCo", 1, "saco", None, "0", predicted_only=True),
    MetricInfo("Spearman", 1, "human", "human", "0"),
    MetricInfo("Dice", 1, "human", "human", "0.1: the share of the pixels that are taken"),
    MetricInfo("IoU", 1, "human", "human", "0.053: 0.1 / 1.9"),
    MetricInfo("SSIM", 1, "human", "human", "about 0"),
)
METRICS: dict[str, MetricInfo] = {metric.name: metric for metric in _ALL}


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
    for metric in _ALL:
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
