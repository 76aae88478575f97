"""Maps of a batch compared with human attention maps, as rows of a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from typing import Any

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

    @cached_property
    def shared(self) -> dict[str, list[Any]]:
        """What identifies each sample: the columns of its rows."""
        return {
            "sample": list(range(self.first, self.first + len(self.batch))),
            "name": [sample.name for sample in self.batch],
            "digest": [sample_digest(sample) for sample in self.batch],
        }


@dataclass(frozen=True)
class Where:
    """What maps are of.

    Attributes:
        setting: The index of the setting; -1 for the plain model.
        method: The method; ``-`` if the maps are of none.
        control: The control; empty if the maps are the method's own, compared with the sample's human map.
        width: The width of the control's Gaussian; 0 if it has none.
    """

    setting: int
    method: str
    control: str = ""
    width: float = 0.0


def score_table(seen: Seen, metrics: Sequence[str]) -> pd.DataFrame:
    """One row per setting, sample, method and metric, and the predictions of the model under each setting.

    Args:
        seen: The maps, and what they are compared with.
        metrics: A subset of `METRICS`.
    """
    batch, many = seen.batch, len(seen.settings)
    shared = {
        **{name: values * many for name, values in seen.shared.items()},
        "setting": [number for number in seen.settings for _ in batch],
    }
    own = {"control": "", "width": 0.0}
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
        pd.DataFrame({**shared, "method": method, **own, "metric": metric, "value": value.numpy()})
        for method, metric, value in columns
    ]
    return pd.concat(tables, ignore_index=True)


def scored(
    seen: Seen, where: Where, maps: torch.Tensor, human: Sequence[torch.Tensor | None], metrics: Sequence[str]
) -> pd.DataFrame:
    """One row per sample and metric.

    Args:
        seen: The samples.
        where: What the maps are of.
        maps: ``(B, H, W)``.
        human: What each is compared with, ``(H, W)``; a sample without has no value.
        metrics: A subset of `METRICS`.
    """
    has = [i for i, one in enumerate(human) if one is not None]
    tables = [pd.DataFrame({**seen.shared, **asdict(where), "metric": name, "value": math.nan}) for name in metrics]
    if has:
        wanted = torch.stack([one.cpu() for one in human if one is not None])
        given = Given(maps=maps[has].cpu(), human_maps=wanted)
        for name, table in zip(metrics, tables, strict=True):
            table.loc[has, "value"] = METRICS[name].scores(given, len(has)).values.double().numpy()
    return pd.concat(tables, ignore_index=True)


def prepared(batch: Sequence[HumanSample], size: int) -> torch.Tensor:
    """The batch's human maps, prepared for the comparison, ``(B, size, size)``.

    Raises:
        ValueError: If one is not finite, with the sample's name.
    """
    return torch.stack([people.prepared(sample.human, size, sample.name) for sample in batch])
