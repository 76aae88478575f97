"""The rows of a chunk of samples: every method's maps, and every metric of every map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import nn

from captum_astro.data.samples import Samples
from captum_astro.data.transforms import ModelTransform
from captum_astro.evaluation.run.cases import Case, Failed, described, load_cases
from captum_astro.evaluation.run.examples import kept_image, kept_map
from captum_astro.evaluation.run.explaining import Explaining
from captum_astro.evaluation.run.measures import NO_ANSWER, Batch, Figure, Job, measure
from captum_astro.evaluation.run.rows import MapRow, Row
from captum_astro.evaluation.specification.config import BenchConfig
from captum_astro.evaluation.specification.metrics import METRICS
from captum_astro.metrics.localisation import object_share
from captum_astro.metrics.perturber import Perturber

LACKING = {
    "label": "this sample has no label",
    "mask": "this sample has no mask",
    "human": "this sample has no human map",
}


class Scored(NamedTuple):
    """What a chunk gives."""

    rows: list[Row]
    maps: list[MapRow]


class Scorer:
    """Scores chunks with one model.

    Whatever fails has its rows all the same, with the error, and nothing else fails with it.

    Args:
        label: The model's name in the rows.
        model: In eval mode, on its device.
        config: The benchmark.
        metrics: Those that the data can give.
        roles: ``predicted``, ``true``, or both: the classes explained.
    """

    def __init__(
        self, label: str, model: nn.Module, config: BenchConfig, metrics: Sequence[str], roles: Sequence[str]
    ) -> None:
        self._label, self._config, self._metrics, self._roles = label, config, tuple(metrics), tuple(roles)
        self._device = next(model.parameters()).device
        self._transform = ModelTransform(model, config.geometry)
        self._perturber = Perturber(
            model,
            self._transform.normalise,
            steps=config.steps,
            batch_size=config.batch_size,
            autocast=config.autocast,
        )
        self._of_map = [name for name in self._metrics if not METRICS[name].of_model]
        self._human = any(METRICS[name].kind == "human" for name in self._metrics)
        self._labelled = "true" in self._roles or any(METRICS[name].needs == "label" for name in self._metrics)
        self._methods = [method.name for method in config.methods]
        self._explaining = Explaining(model, config.methods, self._transform, config.batch_size, config.seed)

    def score(self, dataset: Samples, numbers: Sequence[int]) -> Scored:
        """The rows of some consecutive samples.

        Args:
            dataset: The samples.
            numbers: Which of them.
        """
        cases, failed = load_cases(dataset, numbers, self._transform, self._human)
        rows: list[Row] = []
        maps: list[MapRow] = []
        if cases:
            pixels = torch.stack([case.pixels for case in cases]).to(self._device)
            logits = self._perturber.untouched(pixels)
            wrong = [self._wrong(case, own) for case, own in zip(cases, logits, strict=True)]
            failed += [
                Failed(case.number, case.name, case.label, why)
                for case, why in zip(cases, wrong, strict=True)
                if why is not None
            ]
            good = [i for i, why in enumerate(wrong) if why is None]
            cases = [cases[i] for i in good]
            if cases:
                batch = _batch(cases, pixels[good], logits[good])
                scored = self._scored(cases, batch)
                rows, maps = scored
        for one in failed:
            rows += self._errors(one, "-", one.error, [name for name in self._metrics if METRICS[name].of_model])
            for method in self._methods:
                rows += self._errors(one, method, one.error, self._of_map)
        return Scored(rows, maps)

    def _wrong(self, case: Case, logits: torch.Tensor) -> str | None:
        """Why a sample and the model do not go together, if they do not."""
        if not logits.isfinite().all():
            return f"ValueError: {NO_ANSWER}"
        if self._labelled and case.label is not None and case.label >= len(logits):
            return f"ValueError: label {case.label} is none of the model's classes, 0 to {len(logits) - 1}"
        return None

    def _scored(self, cases: Sequence[Case], batch: Batch) -> Scored:
        rows = list(self._model_rows(cases, batch))
        jobs, failures = self._explaining(batch, [case.number for case in cases], self._roles)
        figures, wrong = self._measured(jobs, batch)
        done = set()
        for figure in figures:
            job = jobs[figure.job]
            case = cases[job.image]
            done.add((job.method, job.image, figure.metric, figure.explained))
            rows.append(
                Row(
                    case.number,
                    case.name,
                    self._label,
                    job.method,
                    figure.metric,
                    figure.explained,
                    figure.value,
                    figure.curve,
                )
            )
        for method, (i, case) in product(self._methods, enumerate(cases)):
            for metric, role in self._expected(case.label, self._of_map):
                if (method, i, metric, role) not in done:
                    why = failures.get((method, i, role)) or wrong.get((method, i)) or _lacking(metric, case)
                    why = why or f"NotImplementedError: captum_astro/evaluation/run/measures.py does not compute {metric}"
                    rows.append(Row(case.number, case.name, self._label, method, metric, role, error=why))
        return Scored(rows, self._kept(cases, jobs))

    def _measured(self, jobs: Sequence[Job], batch: Batch) -> tuple[list[Figure], dict[tuple[str, int], str]]:
        """All figures; where measuring all together fails, map by map."""
        try:
            return list(measure(jobs, batch, self._of_map, self._perturber)), {}
        except Exception as error:
            described(error)
        figures: list[Figure] = []
        wrong: dict[tuple[str, int], str] = {}
        for number, job in enumerate(jobs):
            alone = self._alone(job, batch)
            if isinstance(alone, str):
                wrong[job.method, job.image] = alone
            else:
                figures += [figure._replace(job=number) for figure in alone]
        return figures, wrong

    def _alone(self, job: Job, batch: Batch) -> list[Figure] | str:
        try:
            return list(measure([job], batch, self._of_map, self._perturber))
        except Exception as error:
            return described(error)

    def _model_rows(self, cases: Sequence[Case], batch: Batch) -> Iterator[Row]:
        """Rows that belong to the model or to the data."""
        for case, predicted in zip(cases, batch.predicted, strict=True):
            row = Row(case.number, case.name, self._label, "-", "accuracy", "-")
            if "accuracy" in self._metrics:
                right = None if case.label is None else float(predicted == case.label)
                yield row._replace(value=right, error=_lacking("accuracy", case))
            if "object share" in self._metrics:
                share = None if case.mask is None else object_share(case.mask[None]).item()
                yield row._replace(metric="object share", value=share, error=_lacking("object share", case))

    def _errors(self, case: Failed, method: str, error: str, metrics: Sequence[str]) -> Iterator[Row]:
        for metric, role in self._expected(case.label, metrics, known=False):
            yield Row(case.number, case.name, self._label, method, metric, role, error=error)

    def _expected(self, label: int | None, metrics: Sequence[str], known: bool = True) -> Iterator[tuple[str, str]]:
        """The metrics and classes of which a sample has rows."""
        for name in metrics:
            info = METRICS[name]
            if info.of_model:
                yield name, "-"
                continue
            for role in self._roles:
                unlabelled = known and label is None and role == "true"
                if not unlabelled and (role == "predicted" or not info.predicted_only):
                    yield name, role

    def _kept(self, cases: Sequence[Case], jobs: Sequence[Job]) -> list[MapRow]:
        """The images and maps of the first samples."""
        kept = [kept_image(case, self._label) for case in cases if case.number < self._config.examples]
        for job in jobs:
            case = cases[job.image]
            if case.number < self._config.examples:
                role = "predicted" if "predicted" in job.classes else "true"
                kept.append(kept_map(case, self._label, job.method, role, job.map))
        return kept


def _batch(cases: Sequence[Case], pixels: torch.Tensor, logits: torch.Tensor) -> Batch:
    return Batch(
        pixels,
        logits,
        [case.label for case in cases],
        [case.mask for case in cases],
        [case.human for case in cases],
    )


def _lacking(metric: str, case: Case) -> str | None:
    need = METRICS[metric].needs
    given = {"label": case.label, "mask": case.mask, "human": case.human}
    return f"ValueError: {LACKING[need]}" if need is not None and given[need] is None else None
