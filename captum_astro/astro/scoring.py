"""Maps of a batch against human maps, as rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

import pandas as pd
import torch

from captum_astro.data.human import HumanSample
from captum_astro.metrics.alignment import dice, iou, spearman, ssim

METRICS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "spearman": spearman,
    "dice": dice,
    "iou": iou,
    "ssim": ssim,
}


def check_names(what: str, given: Sequence[str], known: Iterable[str]) -> None:
    """Refuse names that are not known.

    Raises:
        ValueError: If one is not, or there is none.
    """
    known = list(known)
    wrong = next((name for name in given if name not in known), None)
    if wrong is not None or not given:
        raise ValueError(f"There is no {what} {wrong!r} here. Known: {', '.join(known)}.")


def batched(samples: Iterable[HumanSample], size: int) -> Iterator[list[HumanSample]]:
    """Lists of so many samples; the last may be shorter."""
    stream = iter(samples)
    while batch := list(islice(stream, size)):
        yield batch


def score_table(
    batch: Sequence[HumanSample],
    first: int,
    numbers: Sequence[int],
    maps: Mapping[str, torch.Tensor],
    human: torch.Tensor,
    metrics: Sequence[str],
    output: torch.Tensor,
    target: torch.Tensor,
) -> pd.DataFrame:
    """One row for each setting, sample, method and metric, and what the model under each setting sees.

    Args:
        batch: The B samples.
        first: The number of the first.
        numbers: The settings' numbers, S of them.
        maps: For each method, ``(S * B, H, W)``, setting by setting.
        human: ``(B, H, W)``.
        metrics: Some of `METRICS`.
        output: The model's output under each setting, ``(S * B, classes)``.
        target: The plain model's first choice, ``(B,)``.
    """
    many = len(numbers)
    shared = {
        "sample": [first + i for _ in numbers for i in range(len(batch))],
        "name": [sample.name for _ in numbers for sample in batch],
        "setting": [number for number in numbers for _ in batch],
    }
    wanted = human.repeat(many, 1, 1)
    columns = [(method, name, METRICS[name](found, wanted)) for method, found in maps.items() for name in metrics]
    chosen = output.argmax(-1)
    columns.append(("-", "same class", (chosen == target.repeat(many)).double()))
    labels = [sample.label for sample in batch]
    if all(label is not None for label in labels):
        truth = torch.tensor(labels, device=chosen.device).repeat(many)
        columns.append(("-", "accuracy", (chosen == truth).double()))
    tables = [
        pd.DataFrame({**shared, "method": method, "metric": metric, "value": value.cpu().numpy()})
        for method, metric, value in columns
    ]
    return pd.concat(tables, ignore_index=True)
