"""The metrics of some maps, each map for one image and for the classes that it explains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from captum_astro.evaluation.run.human import HUMAN, agreement
from captum_astro.evaluation.specification.metrics import METRICS
from captum_astro.metrics import localisation, perturbation, segmentation
from captum_astro.metrics.perturber import Perturber
from captum_astro.metrics.saco import saco

NO_ANSWER = "the model's output holds NaN or infinite values"
Compared = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
COUNTED: dict[str, Callable[[segmentation.SegmentationCounts], torch.Tensor]] = {
    "pixel accuracy": segmentation.SegmentationCounts.pixel_accuracy,
    "mIoU": segmentation.SegmentationCounts.mean_iou,
}
MASKED: dict[str, Compared] = {
    "mAP": segmentation.average_precision,
    "pointing game": localisation.pointing_game,
    "energy inside": localisation.energy_inside,
}


class Batch(NamedTuple):
    """Images and what the model says of them.

    Attributes:
        pixels: ``(B, 3, S, S)`` in [0, 1], on the model's device.
        logits: ``(B, classes)``, of the untouched images.
        labels: The true class of each, or None.
        masks: ``(S, S)`` of each, or None.
        humans: ``(S, S)`` of each, or None.
    """

    pixels: torch.Tensor
    logits: torch.Tensor
    labels: Sequence[int | None]
    masks: Sequence[torch.Tensor | None]
    humans: Sequence[torch.Tensor | None]

    @property
    def predicted(self) -> list[int]:
        """The model's first choices."""
        return [int(index) for index in self.logits.argmax(-1)]


class Job(NamedTuple):
    """One map.

    Attributes:
        method: Its method.
        image: The place of its image in the batch.
        map: ``(S, S)``.
        classes: The class explained, by ``predicted`` and ``true``: both where one map is for both.
    """

    method: str
    image: int
    map: torch.Tensor
    classes: dict[str, int]


class Figure(NamedTuple):
    """One result: of which job and class, by which metric."""

    job: int
    metric: str
    explained: str
    value: float
    curve: list[float] | None = None


def measure(jobs: Sequence[Job], batch: Batch, metrics: Sequence[str], perturber: Perturber) -> Iterator[Figure]:
    """All metrics of all maps that their images can give.

    Args:
        jobs: The maps.
        batch: Their images.
        metrics: Names.
        perturber: Of the model.

    Raises:
        ValueError: If the model gives NaN or infinite values for a perturbed image, as half precision may.
    """
    if not jobs:
        return
    maps = torch.stack([job.map for job in jobs])
    kinds = {METRICS[name].kind for name in metrics}
    if "perturbation" in kinds:
        yield from _perturbed(jobs, maps, batch, metrics, perturber)
    if "saco" in kinds:
        yield from _saco(jobs, maps, batch, perturber)
    if kinds & {"segmentation", "localisation"}:
        yield from _masked(jobs, maps.cpu(), batch, metrics)
    if "human" in kinds:
        yield from _human(jobs, maps.cpu(), batch, metrics)


def _perturbed(
    jobs: Sequence[Job], maps: torch.Tensor, batch: Batch, metrics: Sequence[str], perturber: Perturber
) -> Iterator[Figure]:
    owner = torch.tensor([job.image for job in jobs])
    both = perturber.curves(batch.pixels, maps, batch.logits, owner)
    _check(both.positive)
    _check(both.negative)
    curves = {"positive AUC": both.positive.cpu(), "negative AUC": both.negative.cpu()}
    labelled = [i for i, job in enumerate(jobs) if batch.labels[job.image] is not None]
    labels = torch.tensor([batch.labels[jobs[i].image] for i in labelled])
    for metric, logits in curves.items():
        if metric in metrics and labelled:
            right = perturbation.top_choice_is(logits[labelled], labels).double()
            areas = perturbation.area_under_curve(right).tolist()
            for i, area, curve in zip(labelled, areas, right.tolist(), strict=True):
                yield from (Figure(i, metric, role, area, curve) for role in jobs[i].classes)
    asked = [(i, role, chosen) for i, job in enumerate(jobs) for role, chosen in job.classes.items()]
    if not {"AOPC", "LOdds"} & set(metrics):
        return
    logits = curves["positive AUC"][[i for i, _, _ in asked]]
    probability = perturbation.class_probability(logits, torch.tensor([chosen for _, _, chosen in asked]))
    drops, odds = perturbation.aopc(probability).tolist(), perturbation.log_odds(probability).tolist()
    for (i, role, _), drop, odd, curve in zip(asked, drops, odds, probability.tolist(), strict=True):
        if "AOPC" in metrics:
            yield Figure(i, "AOPC", role, drop, curve)
        if "LOdds" in metrics:
            yield Figure(i, "LOdds", role, odd)


def _saco(jobs: Sequence[Job], maps: torch.Tensor, batch: Batch, perturber: Perturber) -> Iterator[Figure]:
    mine = [i for i, job in enumerate(jobs) if "predicted" in job.classes]
    step = max(1, len(batch.pixels))  # all methods' pictures at once would be many
    for start in range(0, len(mine), step):
        part = mine[start : start + step]
        classes = torch.tensor([jobs[i].classes["predicted"] for i in part], device=maps.device)

        def predict(pictures: torch.Tensor, owners: torch.Tensor, classes: torch.Tensor = classes) -> torch.Tensor:
            logits = perturber.untouched(pictures)
            _check(logits)
            return perturbation.class_probability(logits[:, None], classes[owners])[:, 0]

        scores = saco(maps[part], batch.pixels[[jobs[i].image for i in part]], predict)
        for i, score in zip(part, scores.tolist(), strict=True):
            yield Figure(i, "SaCo", "predicted", score)


def _masked(jobs: Sequence[Job], maps: torch.Tensor, batch: Batch, metrics: Sequence[str]) -> Iterator[Figure]:
    mine = [i for i, job in enumerate(jobs) if batch.masks[job.image] is not None]
    if not mine:
        return
    masks = torch.stack([mask for i in mine if (mask := batch.masks[jobs[i].image]) is not None])
    found = maps[mine]
    columns: dict[str, tuple[torch.Tensor, Sequence[list[float] | None]]] = {}
    if COUNTED.keys() & set(metrics):
        counted = segmentation.counts(found, masks)
        parts = counted.table().tolist()
        columns = {metric: (score(counted), parts) for metric, score in COUNTED.items() if metric in metrics}
    for metric, function in MASKED.items():
        if metric in metrics:
            columns[metric] = function(found, masks), [None] * len(mine)
    for metric, (values, curves) in columns.items():
        for i, value, curve in zip(mine, values.tolist(), curves, strict=True):
            yield from (Figure(i, metric, role, value, curve) for role in jobs[i].classes)


def _human(jobs: Sequence[Job], maps: torch.Tensor, batch: Batch, metrics: Sequence[str]) -> Iterator[Figure]:
    mine = [i for i, job in enumerate(jobs) if batch.humans[job.image] is not None]
    if not mine:
        return
    human = torch.stack([one for i in mine if (one := batch.humans[jobs[i].image]) is not None])
    found = maps[mine]
    for metric in HUMAN:
        if metric in metrics:
            for i, value in zip(mine, agreement(metric, found, human).tolist(), strict=True):
                yield from (Figure(i, metric, role, value) for role in jobs[i].classes)


def _check(logits: torch.Tensor) -> None:
    if not logits.isfinite().all():  # the first choice among NaN would be a class
        raise ValueError(f"{NO_ANSWER} for perturbed images")
