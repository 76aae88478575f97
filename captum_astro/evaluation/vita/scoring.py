"""Maps of a batch compared with human attention maps, as rows of a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import pandas as pd
import torch

from captum_astro.data.human import HumanSample
from captum_astro.data.samples import sample_digest
from captum_astro.evaluation.run import human as people
from captum_astro.metrics.declaration import Given
from captum_astro.metrics.registry import all_metrics

METRICS = {metric.name.lower(): metric for metric in all_metrics().values() if metric.needs == ("human_maps",)}


def check_names(what: str, given: Sequence[str], known: Iterable[str]) -> None:
    """Reject unknown names.

    Raises:
        ValueError: If one is unknown, or there is none.
    """
    known = list(known)
    wrong = next((name for name in given if name not in known), None)
    if wrong is not None or not given:
        raise ValueError(f"There is no {what} {wrong!r} here. Known: {', '.join(known)}.")


def batched(samples: Iterable[HumanSample], size: int) -> Iterator[list[HumanSample]]:
    """Lists of a given number of samples; the last may be shorter."""
    stream = iter(samples)
    while batch := list(islice(stream, size)):
        yield batch


@dataclass(frozen=True)
class Seen:
    """A batch of B samples under S settings.

    Attributes:
        batch: The samples.
        first: The index of the first sample.
        settings: The settings' indices.
        maps: For each method, ``(S * B, H, W)``, setting by setting.
        human: ``(B, H, W)``.
        output: The model's output under each setting, ``(S * B, classes)``.
        target: The plain model's top prediction, ``(B,)``.
    """

    batch: Sequence[HumanSample]
    first: int
    settings: Sequence[int]
    maps: Mapping[str, torch.Tensor]
    human: torch.Tensor
    output: torch.Tensor
    target: torch.Tensor


def score_table(seen: Seen, metrics: Sequence[str]) -> pd.DataFrame:
    """One row per setting, sample, method and metric, and the predictions of the model under each setting.

    Args:
        seen: The maps, and what they are compared with.
        metrics: A subset of `METRICS`.
    """
    batch, many = seen.batch, len(seen.settings)
    shared = {
        "sample": [seen.first + i for _ in seen.settings for i in range(len(batch))],
        "name": [sample.name for _ in seen.settings for sample in batch],
        "digest": [sample_digest(sample) for sample in batch] * many,
        "setting": [number for number in seen.settings for _ in batch],
    }
    wanted, output, target = seen.human.cpu().repeat(many, 1, 1), seen.output.cpu(), seen.target.cpu()
    columns = []
    for method, found in seen.maps.items():
        given = Given(maps=found.cpu(), human_maps=wanted)  # in float64, which not every device supports
        columns += [(method, name, METRICS[name].scores(given, len(wanted)).values) for name in metrics]
    chosen = output.argmax(-1)
    columns.append(("-", "same class", (chosen == target.repeat(many)).double()))
    labels = [-1 if sample.label is None else sample.label for sample in batch]
    if any(label >= 0 for label in labels):
        truth = torch.tensor(labels).repeat(many)
        columns.append(("-", "accuracy", torch.where(truth >= 0, (chosen == truth).double(), torch.nan)))
    tables = [
        pd.DataFrame({**shared, "method": method, "metric": metric, "value": value.numpy()})
        for method, metric, value in columns
    ]
    return pd.concat(tables, ignore_index=True)


def prepared(batch: Sequence[HumanSample], size: int) -> torch.Tensor:
    """The batch's human maps, prepared for the comparison, ``(B, size, size)``.

    Raises:
        ValueError: If one is not finite, with the sample's name.
    """
    return torch.stack([people.prepared(sample.human, size, sample.name) for sample in batch])
