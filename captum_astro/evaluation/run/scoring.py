"""The rows of a chunk of samples: every method's maps, and every metric of every map."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import nn

from captum_astro.astro.vita import ViTA
from captum_astro.data.samples import Samples
from captum_astro.data.transforms import ModelTransform
from captum_astro.evaluation.run.again import Again
from captum_astro.evaluation.run.batches import Batch, Job
from captum_astro.evaluation.run.cases import Case, Failed
from captum_astro.evaluation.run.compiling import compiled
from captum_astro.evaluation.run.examples import class_text, kept_image, kept_map
from captum_astro.evaluation.run.explaining import Explaining, Failures
from captum_astro.evaluation.run.failures import Failure
from captum_astro.evaluation.run.loading import Loaded, Loading
from captum_astro.evaluation.run.measures import NO_ANSWER, Figure, Measured, measure, measure_model
from captum_astro.evaluation.run.rows import MapRow, Row
from captum_astro.evaluation.specification.config import BenchConfig
from captum_astro.metrics.declaration import OF_THE_DATA, Metric
from captum_astro.metrics.perturber import Perturber
from captum_astro.metrics.registry import all_metrics
from captum_astro.models.data_config import described
from captum_astro.models.loading import class_names


class Scored(NamedTuple):
    """The results of a chunk, and the digest of each of its samples, by index."""

    rows: list[Row]
    maps: list[MapRow]
    samples: dict[int, str]


class Scorer:
    """Scores chunks with one model.

    Whatever fails still has its rows, with the failure, and nothing else fails because of it.

    Args:
        label: The model's name in the rows.
        model: In eval mode, on its device; under astrocytes, the predicted class is that of the model without them.
        config: The benchmark, with the metrics that the data supports.
        roles: ``predicted``, ``true``, or both: the classes to explain.
    """

    def __init__(self, label: str, model: nn.Module, config: BenchConfig, roles: Sequence[str]) -> None:
        self._label, self._config, self._roles = label, config, tuple(roles)
        known = all_metrics()
        self._metrics = [known[name] for name in config.metrics]
        self._like = next(model.parameters())
        self._timm = described(model)
        self._transform = ModelTransform(model, config.geometry)
        self._perturber = self._perturbing(model)
        # astrocytes serve explanation only: the predicted class is that of the model without them
        self._chooser = self._perturbing(model.model) if isinstance(model, ViTA) else None
        self._human = self._transform.size if any("human_maps" in metric.needs for metric in self._metrics) else None
        self._labelled = "true" in self._roles or any("labels" in metric.needs for metric in self._metrics)
        self._methods = [method.name for method in config.methods]
        explaining = (model, config.methods, self._transform, config.batch_size, config.seed)
        self._explaining, self._again = Explaining(*explaining), Again(*explaining)

    def _perturbing(self, model: nn.Module) -> Perturber:
        return Perturber(
            compiled(model, self._transform.size) if self._config.compile else model,
            lambda pixels: self._transform.normalise(pixels).to(self._like.dtype),
            steps=self._config.steps,
            batch_size=self._config.batch_size,
            autocast=self._config.autocast,
        )

    def loading(self, dataset: Samples) -> Loading:
        """What loads the samples of a dataset for this model."""
        return Loading(dataset, self._transform, self._human, self._like.device)

    def score(self, loaded: Loaded) -> Callable[[], Scored]:
        """Run the model on a chunk.

        Returns:
            Computes the rows, which needs the device no more; another thread may call it, once.
        """
        cases, failed = list(loaded.cases), list(loaded.failed)
        samples = {case.number: case.digest for case in cases} | {one.number: one.digest for one in failed}
        rest: Callable[[], tuple[list[Row], list[MapRow]]] | None = None
        if cases:
            pixels = loaded.pixels.to(self._like.device, non_blocking=True)
            logits = self._perturber.untouched(pixels)
            seen = logits if self._chooser is None else self._chooser.untouched(pixels)
            finite = (logits.isfinite() & seen.isfinite()).all(1).tolist()
            wrong = [self._wrong(case, good, logits.shape[1]) for case, good in zip(cases, finite, strict=True)]
            failed += [
                Failed(case.number, case.name, case.label, failure, case.digest)
                for case, failure in zip(cases, wrong, strict=True)
                if failure is not None
            ]
            good = [i for i, failure in enumerate(wrong) if failure is None]
            cases = [cases[i] for i in good]
            if cases:
                predicted = [int(index) for index in seen[good].argmax(-1)]
                rest = self._scored(cases, _batch(cases, pixels[good], logits[good], predicted))

        def scored() -> Scored:
            rows, maps = ([], []) if rest is None else rest()
            for one, method in product(failed, ["-", *self._methods]):
                rows.extend(self._failed(one, method))
            return Scored(rows, maps, samples)

        return scored

    def _wrong(self, case: Case, finite: bool, classes: int) -> Failure | None:
        """Why a sample and the model do not fit together; None if they do."""
        if not finite:
            return Failure("ValueError", NO_ANSWER, "sample")
        if self._labelled and case.label is not None and case.label >= classes:
            known = f"0 to {classes - 1}"
            return Failure("ValueError", f"label {case.label} is none of the model's classes, {known}", "sample")
        return None

    def _scored(self, cases: Sequence[Case], batch: Batch) -> Callable[[], tuple[list[Row], list[MapRow]]]:
        rows = self._of_model(cases, batch)
        jobs, failures = self._explaining(batch, [case.number for case in cases], self._roles)
        measured = measure(jobs, batch, self._metrics, self._perturber, self._again)
        kept = self._kept(cases, batch, jobs)
        return lambda: (rows + self._of_maps(cases, batch, jobs, failures, measured()), kept)

    def _of_maps(
        self, cases: Sequence[Case], batch: Batch, jobs: Sequence[Job], failures: Failures, measured: Measured
    ) -> list[Row]:
        """Rows that belong to the methods."""
        rows, done = [], set()
        for figure in measured.figures:
            job = jobs[figure.job]
            done.add((job.method, job.image, figure.metric, figure.explained))
            rows.append(self._row(cases[job.image], job.method, figure))
        wrong = {(jobs[n].method, jobs[n].image, metric): why for (n, metric), why in measured.failures.items()}
        for method, (i, case) in product(self._methods, enumerate(cases)):
            for metric, role in self._expected(case.label, of_model=False):
                if (method, i, metric.name, role) not in done:
                    why = failures.get((method, i, role)) or wrong.get((method, i, metric.name))
                    rows.append(self._without(case, method, metric, role, why or _lacking(metric, batch, i)))
        return rows

    def _of_model(self, cases: Sequence[Case], batch: Batch) -> list[Row]:
        """Rows that belong to the model or to the data."""
        measured = measure_model(batch, self._metrics, self._perturber)
        rows = [self._row(cases[figure.job], "-", figure) for figure in measured.figures]
        done = {(figure.job, figure.metric) for figure in measured.figures}
        for i, case in enumerate(cases):
            for metric, role in self._expected(case.label, of_model=True):
                if (i, metric.name) not in done:
                    why = measured.failures.get((i, metric.name)) or _lacking(metric, batch, i)
                    rows.append(self._without(case, "-", metric, role, why))
        return rows

    def _failed(self, failed: Failed, method: str) -> Iterator[Row]:
        for metric, role in self._expected(failed.label, of_model=method == "-", known=False):
            yield self._without(failed, method, metric, role, failed.failure)

    def _row(self, case: Case, method: str, figure: Figure) -> Row:
        known = (case.number, case.name, self._label, method, figure.metric, figure.explained)
        return Row(*known, figure.value, figure.curve, figure.failure)

    def _without(self, case: Case | Failed, method: str, metric: Metric, role: str, why: Failure | None) -> Row:
        return Row(case.number, case.name, self._label, method, metric.name, role, failure=why)

    def _expected(self, label: int | None, *, of_model: bool, known: bool = True) -> Iterator[tuple[Metric, str]]:
        """The metrics and classes for which a sample has rows."""
        for metric in self._metrics:
            if metric.of_model != of_model:
                continue
            if of_model:
                yield metric, "-"
                continue
            for role in self._roles:
                unlabelled = known and label is None and role == "true"
                if not unlabelled and (role == "predicted" or not metric.predicted_only):
                    yield metric, role

    def _kept(self, cases: Sequence[Case], batch: Batch, jobs: Sequence[Job]) -> list[MapRow]:
        """The images and maps of the first samples."""
        kept = [
            kept_image(case, self._label, self._named(seen, batch), self._named(case.label, batch))
            for case, seen in zip(cases, batch.predicted, strict=True)
            if case.number < self._config.examples
        ]
        for job in jobs:
            case = cases[job.image]
            if case.number < self._config.examples:
                role = "predicted" if "predicted" in job.classes else "true"
                kept.append(kept_map(case, self._label, job.method, role, job.map))
        return kept

    def _named(self, index: int | None, batch: Batch) -> str | None:
        """A class as text."""
        return None if index is None else class_text(index, class_names(self._timm, batch.logits.shape[1]))


def _batch(cases: Sequence[Case], pixels: torch.Tensor, logits: torch.Tensor, predicted: list[int]) -> Batch:
    return Batch(
        pixels,
        logits,
        predicted,
        [case.label for case in cases],
        [case.mask for case in cases],
        [case.human for case in cases],
    )


def _lacking(metric: Metric, batch: Batch, image: int) -> Failure | None:
    """What a sample lacks for a metric; None if it has everything."""
    for need in metric.needs:
        if need in OF_THE_DATA and batch.known(need)[image] is None:
            return Failure("ValueError", f"this sample has no {OF_THE_DATA[need]}", "data")
    return None
