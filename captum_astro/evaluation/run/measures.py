"""The metrics of maps, each map for one image and for the classes that it explains."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from captum_astro.evaluation.run.again import Again, Asked
from captum_astro.evaluation.run.batches import Batch, Job
from captum_astro.evaluation.run.failures import UNDEFINED, Failure
from captum_astro.metrics.declaration import OF_THE_DATA, Given, Metric, Need
from captum_astro.metrics.perturbation import class_probability
from captum_astro.metrics.perturber import Baseline, Perturber

NO_ANSWER = "the model's output holds NaN or infinite values"
_CURVES: dict[Need, tuple[Baseline, int]] = {
    "positive_logits": ("black", 0),
    "negative_logits": ("black", 1),
    "blurred_positive_logits": ("blurred", 0),
    "blurred_negative_logits": ("blurred", 1),
}
# the others are computed on the CPU, from maps, answers and annotations alone
_OF_THE_DEVICE = frozenset[Need](("pixels", "answers", "probability", "explain", "randomised"))


class Figure(NamedTuple):
    """One result: its job (or image), class and metric."""

    job: int
    metric: str
    explained: str
    value: float
    curve: list[float] | None = None
    failure: Failure | None = None


@dataclass(frozen=True)
class Measured:
    """All results.

    Attributes:
        figures: The results.
        failures: By job and metric; all other results are unaffected.
    """

    figures: list[Figure] = field(default_factory=list)
    failures: dict[tuple[int, str], Failure] = field(default_factory=dict)


class _Entry(NamedTuple):
    """One value to compute: its job and class, and the roles that it is used for."""

    job: int
    image: int
    chosen: int
    roles: tuple[str, ...]


def measure(
    jobs: Sequence[Job], batch: Batch, metrics: Sequence[Metric], perturber: Perturber, again: Again | None = None
) -> Callable[[], Measured]:
    """All metrics of all maps that their images support; what needs the model is computed at once.

    Args:
        jobs: The maps.
        batch: Their images.
        metrics: The metrics; those of the model are skipped.
        perturber: The perturber of the model.
        again: Explains other images, or with other models, for the metrics that need it.

    Returns:
        Computes the rest, on the CPU, and returns all results; another thread may call it, once.
    """
    found = Measured()
    wanted = [metric for metric in metrics if not metric.of_model]
    if not jobs or not wanted:
        return lambda: found
    maps = torch.stack([job.map for job in jobs])
    curves: dict[Baseline, dict[int, Any]] = {}
    for baseline in dict.fromkeys(baseline for baseline, _ in _CURVES.values()):
        of_it = [metric for metric in wanted if baseline in _baselines(metric.needs)]
        if of_it:
            curves[baseline], failures = _curves(jobs, maps, batch, perturber.with_baseline(baseline))
            found.failures.update({(job, m.name): why for job, why in failures.items() for m in of_it})
    material = _Material(maps.cpu(), jobs, batch, curves, perturber, again)
    # full batches for the model; intermediate results for all maps together would be large
    step = max(len(batch.pixels), perturber.batch_size)

    def compute(same: Sequence[Metric]) -> None:
        entries = [entry for entry in _entries(jobs, same[0]) if material.has(entry, same[0].needs)]
        for start in range(0, len(entries), step):
            _compute(same, entries[start : start + step], material, found)

    alike = list(_alike(wanted))
    for same in alike:
        if _OF_THE_DEVICE.intersection(same[0].needs):
            compute(same)

    def rest() -> Measured:
        for same in alike:
            if not _OF_THE_DEVICE.intersection(same[0].needs):
                compute(same)
        return found

    return rest


def measure_model(batch: Batch, metrics: Sequence[Metric], perturber: Perturber) -> Measured:
    """The metrics that belong to the model or the data, for each image; `Figure.job` is the image.

    Args:
        batch: The images.
        metrics: The metrics; those of maps are skipped.
        perturber: The perturber of the model.
    """
    found = Measured()
    material = _Material(None, (), batch, {}, perturber)
    for metric in metrics:
        if metric.of_model:
            entries = [_Entry(i, i, 0, ("-",)) for i in range(len(batch.pixels))]
            _compute([metric], [entry for entry in entries if material.has(entry, metric.needs)], material, found)
    return found


class _Material:
    """The inputs of metrics, selected by entries."""

    def __init__(
        self,
        maps: torch.Tensor | None,
        jobs: Sequence[Job],
        batch: Batch,
        curves: Mapping[Baseline, Mapping[int, Any]],
        perturber: Perturber,
        again: Again | None = None,
    ) -> None:
        self._maps, self._jobs, self._batch, self._curves = maps, jobs, batch, curves
        self._perturber, self._again = perturber, again

    def has(self, entry: _Entry, needs: Sequence[Need]) -> bool:
        """Whether the image has the needed annotations, and the perturbed images have an output."""
        known = all(self._batch.known(need)[entry.image] is not None for need in needs if need in OF_THE_DATA)
        return known and all(entry.job in self._curves[baseline] for baseline in _baselines(needs))

    def given(self, entries: Sequence[_Entry], needs: Sequence[Need]) -> Given:
        known: dict[str, Any] = {need: self._needed(need, entries) for need in needs}
        if self._maps is not None:
            known["maps"] = self._maps[[entry.job for entry in entries]]
        return Given(**known)

    def _needed(self, need: Need, entries: Sequence[_Entry]) -> Any:
        images = [entry.image for entry in entries]
        if need in OF_THE_DATA:
            values = [self._batch.known(need)[image] for image in images]
            return torch.tensor(values) if need == "labels" else torch.stack(values)
        if need == "logits":
            return self._batch.logits[images].cpu()
        if need == "pixels":
            return self._batch.pixels[images]
        if need in _CURVES:
            baseline, direction = _CURVES[need]
            return torch.stack([self._curves[baseline][entry.job][direction] for entry in entries])
        classes = torch.tensor([entry.chosen for entry in entries])
        if need == "classes":
            return classes
        if need in ("answers", "probability"):
            return self._answers if need == "answers" else self._probability(classes)
        return self._explained(need, entries)

    def _answers(self, pictures: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
        logits = self._perturber.untouched(pictures)
        _check(logits)
        return logits

    def _probability(self, classes: torch.Tensor) -> Any:
        def probability(pictures: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
            logits = self._answers(pictures, owners)
            return class_probability(logits[:, None], classes.to(owners.device)[owners])[:, 0]

        return probability

    def _explained(self, need: Need, entries: Sequence[_Entry]) -> Any:
        if self._again is None:
            raise ValueError("This metric explains images again, which needs the methods: run it in a benchmark.")
        again = self._again
        asked = [Asked(self._jobs[entry.job].method, entry.chosen) for entry in entries]
        if need == "explain":
            return lambda pictures, owners: again.explain(pictures, [asked[i] for i in owners.tolist()])
        images = self._batch.pixels[[entry.image for entry in entries]]
        return lambda cascading: again.randomised(images, asked, cascading=cascading)


def _curves(
    jobs: Sequence[Job], maps: torch.Tensor, batch: Batch, perturber: Perturber
) -> tuple[dict[int, Any], dict[int, Failure]]:
    """Logits of both directions by job; if all together fail, job by job."""

    def run(numbers: Sequence[int]) -> dict[int, Any]:
        owner = torch.tensor([jobs[number].image for number in numbers])
        both = perturber.curves(batch.pixels, maps[list(numbers)], batch.logits, owner)
        for logits in both:
            _check(logits)
        return dict(zip(numbers, zip(both.positive.cpu(), both.negative.cpu(), strict=True), strict=True))

    try:
        return run(range(len(jobs))), {}
    except Exception as error:
        Failure.of(error, "metric")
    found: dict[int, Any] = {}
    failures: dict[int, Failure] = {}
    for number in range(len(jobs)):
        done, failed = _alone(run, number)
        found |= done
        failures |= failed
    return found, failures


def _alone(run: Callable[[Sequence[int]], dict[int, Any]], number: int) -> tuple[dict[int, Any], dict[int, Failure]]:
    try:
        return run([number]), {}
    except Exception as error:
        return {}, {number: Failure.of(error, "metric")}


def _baselines(needs: Sequence[Need]) -> set[Baseline]:
    """What removed pixels become in the curves that a metric needs."""
    return {_CURVES[need][0] for need in needs if need in _CURVES}


def _alike(metrics: Sequence[Metric]) -> Iterator[list[Metric]]:
    """Metrics with the same needs together, so that they share their inputs."""
    found: dict[tuple[frozenset[Need], bool], list[Metric]] = {}
    for metric in metrics:
        found.setdefault((frozenset(metric.needs), metric.predicted_only), []).append(metric)
    yield from found.values()


def _entries(jobs: Sequence[Job], metric: Metric) -> Iterator[_Entry]:
    """A value for each map, or for each class of each map if the metric depends on it."""
    for number, job in enumerate(jobs):
        roles = [role for role in job.classes if role == "predicted" or not metric.predicted_only]
        if "classes" not in metric.needs:
            if roles:
                yield _Entry(number, job.image, 0, tuple(roles))
            continue
        for chosen in dict.fromkeys(job.classes[role] for role in roles):
            yield _Entry(number, job.image, chosen, tuple(r for r in roles if job.classes[r] == chosen))


def _compute(metrics: Sequence[Metric], entries: Sequence[_Entry], material: _Material, found: Measured) -> None:
    """Add the results; if a metric fails on all together, compute each entry separately."""
    if not entries:
        return
    given = material.given(entries, metrics[0].needs)
    for metric in metrics:
        if (failure := _failed(metric, entries, given, found)) is None:
            continue
        if len(entries) == 1:
            found.failures[entries[0].job, metric.name] = failure
            continue
        for entry in entries:
            _compute([metric], [entry], material, found)


def _failed(metric: Metric, entries: Sequence[_Entry], given: Given, found: Measured) -> Failure | None:
    try:
        _add(metric, entries, given, found)
    except Exception as error:
        return Failure.of(error, "metric")
    return None


def _add(metric: Metric, entries: Sequence[_Entry], given: Given, found: Measured) -> None:
    scores = metric.scores(given, len(entries))
    curves = scores.curves.tolist() if scores.curves.shape[1] else [None] * len(entries)
    for entry, value, curve, why in zip(entries, scores.values.tolist(), curves, scores.reasons, strict=True):
        failure = None if why is None else Failure(UNDEFINED, why, "metric")
        found.figures.extend(Figure(entry.job, metric.name, role, value, curve, failure) for role in entry.roles)


def _check(logits: torch.Tensor) -> None:
    if not logits.isfinite().all():  # the argmax of NaN would be a class
        raise ValueError(f"{NO_ANSWER} for perturbed images")
