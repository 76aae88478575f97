"""One setting of ViTA compared with the plain model, for any methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn

from captum_astro.astro.vita import ViTA
from captum_astro.capture.modes import check_eval
from captum_astro.data.human import HumanSample, prepare_heatmap
from captum_astro.data.samples import Sample, sample_digest
from captum_astro.data.transforms import ModelTransform
from captum_astro.evaluation.run.batches import Batch
from captum_astro.evaluation.run.cases import Case, load_cases
from captum_astro.evaluation.run.explaining import Explaining
from captum_astro.evaluation.specification.methods import CAPTUM, RANDOM, Method, methods_of
from captum_astro.evaluation.vita.another import WITHIN, another
from captum_astro.evaluation.vita.config import EVALUATION, EvaluationConfig
from captum_astro.evaluation.vita.control_scores import control_scores
from captum_astro.evaluation.vita.results import PLAIN, Results
from captum_astro.evaluation.vita.scoring import METRICS, Seen, batched, check_names, score_table
from captum_astro.evaluation.vita.settings import Setting
from captum_astro.evaluation.vita.store import Store


def evaluate(
    model: nn.Module,
    samples: Iterable[HumanSample],
    setting: Setting,
    config: EvaluationConfig = EVALUATION,
    *,
    out: Path | None = None,
    done: Callable[[int], None] | None = None,
) -> Results:
    """Score maps of the plain and of the modulated model against human attention maps, sample by sample.

    Args:
        model: A timm model, or a wrapper around one.
        samples: Images with human maps, in a fixed order.
        setting: The astrocytes.
        config: The methods, the metrics, the class to explain, and run options.
        out: A folder for the results, written batch by batch. If it holds results of the same run, that is resumed.
        done: Callback that receives the number of finished samples, after each batch.

    Returns:
        Scores with index 0 for the setting and -1 for the plain model, and those of the controls; ``compare()`` returns
        the table.

    Raises:
        ValueError: If there are no samples, a name is unknown, a label is missing, a method has no map of a sample, or
            the folder holds another run.
    """
    chosen = _methods(config.methods)
    check_names("metric", config.metrics, METRICS)
    check_eval(model)
    pair = _Pair(model, ViTA(model, **setting.keywords), chosen, config)
    run = {"methods": list(config.methods), "metrics": list(config.metrics), "batch_size": config.batch_size}
    store = Store(out, model, [setting], {**run, "size": pair.size, "explained": config.explained, **pair.input})
    role = "predicted" if config.explained == "predicted" else "true"
    number = count = 0
    looked: dict[int, torch.Tensor] = {}  # the human maps of the last photographs, as read
    for batch in batched(samples, config.batch_size):
        looked |= {count + i: sample.human for i, sample in enumerate(batch)}
        if not store.has(number, [sample_digest(sample) for sample in batch]):
            seen = pair.seen(batch, count, role)
            others = [_prepared(looked, another(count + i), pair.size) for i in range(len(batch))]
            tables = score_table(seen, config.metrics), control_scores(seen, others, config.metrics)
            store.add(number, pd.concat(tables, ignore_index=True))
        looked = {index: human for index, human in looked.items() if index >= count + len(batch) - WITHIN}
        number, count = number + 1, count + len(batch)
        if done is not None:
            done(count)
    if not count:
        raise ValueError("There are no samples.")
    return store.results(number)


class _Pair:
    """The plain and the modulated model, each with its maps from the benchmark's engine."""

    def __init__(self, model: nn.Module, vita: ViTA, methods: Sequence[Method], config: EvaluationConfig) -> None:
        self._transform = ModelTransform(model, "none")
        self._like = next(model.parameters())
        self._methods = [method.name for method in methods]
        self._variants = {
            number: (variant, Explaining(variant, methods, self._transform, config.batch_size, seed=0))
            for number, variant in ((PLAIN, model), (0, vita))
        }
        self.size = self._transform.size if config.size is None else config.size
        self.input = self._transform.described

    def seen(self, batch: Sequence[HumanSample], first: int, role: str) -> Seen:
        """The maps of a batch by all methods, for one class of each sample."""
        cases = self._cases(batch, role)
        pixels = torch.stack([case.pixels for case in cases]).to(self._like.device)
        inputs = self._transform.normalise(pixels).to(self._like.dtype)
        with torch.no_grad():
            outputs = [variant(inputs) for variant, _ in self._variants.values()]
        top = outputs[0].argmax(-1)
        nothing: list[None] = [None] * len(cases)
        labels = [case.label for case in cases]
        human = torch.stack([case.human for case in cases if case.human is not None])
        maps: dict[str, list[torch.Tensor]] = {name: [] for name in self._methods}
        for (_, explaining), output in zip(self._variants.values(), outputs, strict=True):
            engine_batch = Batch(pixels, output, top.tolist(), labels, nothing, nothing)
            jobs, failures = explaining(engine_batch, [first + case.number for case in cases], [role])
            for (method, place, _), failure in failures.items():
                raise ValueError(f"{method} has no map of {cases[place].name}: {failure}")
            for job in sorted(jobs, key=lambda job: job.image):
                maps[job.method].append(job.map)
        sized = {name: _sized(torch.stack(found), self.size) for name, found in maps.items()}
        return Seen(batch, first, list(self._variants), sized, human, torch.cat(outputs), top)

    def _cases(self, batch: Sequence[HumanSample], role: str) -> list[Case]:
        unnamed = next((sample.name for sample in batch if sample.label is None), None)
        if role == "true" and unnamed is not None:
            raise ValueError(f"{unnamed} has no label: explain the predicted class.")
        dataset = [Sample(sample.image, sample.label, None, sample.human, sample.name) for sample in batch]
        cases, failed = load_cases(dataset, range(len(dataset)), self._transform, human=self.size)
        if failed:
            raise ValueError(f"{failed[0].name}: {failed[0].failure.message}")
        return cases


def _prepared(looked: Mapping[int, torch.Tensor], index: int | None, size: int) -> torch.Tensor | None:
    return None if index is None else prepare_heatmap(looked[index], size)


def _sized(maps: torch.Tensor, size: int) -> torch.Tensor:
    return F.interpolate(maps[:, None], (size, size), mode="bilinear")[:, 0] if maps.shape[-1] != size else maps


def _methods(names: Sequence[str]) -> tuple[Method, ...]:
    """The methods, without those that add their own astrocytes."""
    known = [method.name for method in methods_of("all") if not method.has_astrocytes and method.name != RANDOM]
    check_names("method", [name.split(":")[0] for name in names], [*known, *CAPTUM])
    return methods_of(names)
