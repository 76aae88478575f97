"""Samples as a model takes them, those that cannot be read set apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from captum_astro.data.samples import Samples, plain_text, sample_digest
from captum_astro.data.transforms import ModelTransform
from captum_astro.evaluation.run.failures import Failure
from captum_astro.evaluation.run.human import prepared
from captum_astro.metrics.declaration import Need


class Case(NamedTuple):
    """One sample as a model takes it.

    Attributes:
        number: In the dataset.
        name: In the dataset.
        label: The true class.
        pixels: ``(3, S, S)`` in [0, 1].
        mask: ``(S, S)`` int8.
        human: ``(S, S)``, prepared for a comparison.
    """

    number: int
    name: str
    label: int | None
    pixels: torch.Tensor
    mask: torch.Tensor | None
    human: torch.Tensor | None


class Failed(NamedTuple):
    """A sample without a result, and why."""

    number: int
    name: str
    label: int | None
    failure: Failure


@dataclass(frozen=True)
class Probe:
    """What a dataset is, as far as a few of its samples tell.

    Attributes:
        count: How many samples it has.
        digest: Of the content of the samples that were looked at.
        has: What they have, besides images.
    """

    count: int
    digest: str
    has: frozenset[Need]


def load_cases(
    dataset: Samples, numbers: Iterable[int], transform: ModelTransform, human: int | None = None
) -> tuple[list[Case], list[Failed]]:
    """Read some samples and bring them to the model's size.

    Args:
        dataset: The samples.
        numbers: Which of them.
        transform: Of the model.
        human: The side of the human maps in pixels; None where they are not wanted.

    Returns:
        The samples, and those that cannot be read or brought to size, each with its error.

    Raises:
        Exception: An error of the machine, see `Failure.of`; any other one is a `Failed`.
    """
    cases, failed = [], []
    for number in numbers:
        name, label = f"sample {number}", None
        try:
            sample = dataset[number]
            name, label = plain_text(sample.name), sample.label
            pixels, mask = transform(sample.image, sample.mask)
            looked = None
            if human is not None and sample.human is not None:
                looked = prepared(sample.human, human, name)
        except Exception as error:
            failed.append(Failed(number, name, label, Failure.of(error, "sample")))
        else:
            cases.append(Case(number, name, label, pixels, mask, looked))
    return cases, failed


def probe(dataset: Samples, looks: int = 16) -> Probe:
    """Look at some samples, the first and the last among them.

    Args:
        dataset: The samples.
        looks: At how many.

    Raises:
        ValueError: If there is none, or the first that are looked at cannot be read at all.
    """
    count = len(dataset)
    if count == 0:
        raise ValueError("The data holds no sample.")
    numbers = sorted({round(i * (count - 1) / max(1, looks - 1)) for i in range(looks)})
    found, has, seen, errors = hashlib.sha256(str(count).encode()), set[Need](), 0, []
    for number in numbers:
        try:
            sample = dataset[number]
        except Exception as error:
            errors.append(Failure.of(error, "sample"))
            found.update(f"{number} cannot be read".encode())
            continue
        seen += 1
        found.update(sample_digest(sample).encode())
        given: dict[Need, object] = {"labels": sample.label, "masks": sample.mask, "human_maps": sample.human}
        has |= {need for need, value in given.items() if value is not None}
    if not seen:
        raise ValueError(f"No sample of the data can be read: {errors[0]}")
    return Probe(count, found.hexdigest()[:16], frozenset(has))


def numbers_of(chunk: int, size: int, count: int) -> Sequence[int]:
    """The samples of a chunk.

    Example:
        >>> list(numbers_of(1, size=10, count=13))
        [10, 11, 12]
    """
    return range(chunk * size, min((chunk + 1) * size, count))
