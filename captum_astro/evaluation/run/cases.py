"""Samples preprocessed for a model, separated from those that cannot be read."""

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
    """One sample, preprocessed for a model.

    Attributes:
        number: Its index in the dataset.
        name: Its name in the dataset.
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
    """A sample without a result, and the reason."""

    number: int
    name: str
    label: int | None
    failure: Failure


@dataclass(frozen=True)
class Probe:
    """The properties of a dataset, judged from a few of its samples.

    Attributes:
        count: The number of samples.
        digest: Digest of the content of the inspected samples.
        has: Which annotations they have.
    """

    count: int
    digest: str
    has: frozenset[Need]


def load_cases(
    dataset: Samples, numbers: Iterable[int], transform: ModelTransform, human: int | None = None
) -> tuple[list[Case], list[Failed]]:
    """Read some samples and resize them to the model's size.

    Args:
        dataset: The samples.
        numbers: Their indices.
        transform: The transform of the model.
        human: The side length of the human maps in pixels; None if they are not needed.

    Returns:
        The samples, and those that cannot be read or resized, each with its error.

    Raises:
        Exception: A machine error, see `Failure.of`; any other error is returned as a `Failed`.
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
    """Inspect some samples, including the first and the last.

    Args:
        dataset: The samples.
        looks: The number of samples to inspect.

    Raises:
        ValueError: If there are none, or the first inspected ones cannot be read at all.
    """
    count = len(dataset)
    if count == 0:
        raise ValueError("The data contains no samples.")
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
    """The sample indices of a chunk.

    Example:
        >>> list(numbers_of(1, size=10, count=13))
        [10, 11, 12]
    """
    return range(chunk * size, min((chunk + 1) * size, count))
