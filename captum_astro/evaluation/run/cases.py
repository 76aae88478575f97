"""Samples preprocessed for a model, separated from those that cannot be read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from captum_astro.data.samples import Sample, Samples, plain_text, sample_digest
from captum_astro.data.transforms import ModelTransform
from captum_astro.evaluation.run.failures import Failure
from captum_astro.evaluation.run.human import prepared
from captum_astro.metrics.declaration import Need
from captum_astro.wording import reason


class Case(NamedTuple):
    """One sample, preprocessed for a model.

    Attributes:
        number: Its index in the dataset.
        name: Its name in the dataset.
        label: The true class.
        pixels: ``(3, S, S)`` in [0, 1].
        mask: ``(S, S)`` int8.
        human: ``(S, S)``, prepared for a comparison.
        digest: Of everything in the sample, see `read_sample`.
    """

    number: int
    name: str
    label: int | None
    pixels: torch.Tensor
    mask: torch.Tensor | None
    human: torch.Tensor | None
    digest: str


class Failed(NamedTuple):
    """A sample without a result, and the reason."""

    number: int
    name: str
    label: int | None
    failure: Failure
    digest: str


class Read(NamedTuple):
    """What was read for a sample: its content, or why there is none.

    Attributes:
        sample: The sample; None if it cannot be read.
        name: Its name, or its number.
        digest: Of everything in it, or of the failure.
        failure: Why it cannot be read.
    """

    sample: Sample | None
    name: str
    digest: str
    failure: Failure | None = None


@dataclass(frozen=True)
class Probe:
    """The properties of a dataset, judged from a few of its samples.

    Attributes:
        count: The number of samples.
        has: Which annotations they have.
    """

    count: int
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
        sample, name, digest, failure = read_sample(dataset, number)
        label = None if sample is None else sample.label
        if sample is not None:
            try:
                pixels, mask = transform(sample.image, sample.mask)
                looked = None
                if human is not None and sample.human is not None:
                    looked = prepared(sample.human, human, name)
                cases.append(Case(number, name, label, pixels, mask, looked, digest))
            except Exception as error:
                failure = _failure(error, name)
        if failure is not None:
            failed.append(Failed(number, name, label, failure, digest))
    return cases, failed


def read_sample(dataset: Samples, number: int) -> Read:
    """Read a sample, with the digest by which a change of its image, label, name or annotations is noticed.

    Args:
        dataset: The samples.
        number: Its index.

    Raises:
        Exception: A machine error, see `Failure.of`; any other error is returned.
    """
    try:
        sample = dataset[number]
        return Read(sample, plain_text(sample.name), sample_digest(sample))
    except Exception as error:
        failure = _failure(error, f"sample {number}")
    return Read(None, f"sample {number}", hashlib.sha256(str(failure).encode()).hexdigest()[:16], failure)


def _failure(error: Exception, name: str) -> Failure:
    """Why a sample cannot be read; where it ends the run for lack of memory, the error says of which."""
    try:
        return Failure.of(error, "sample")
    except MemoryError as lacking:
        raise MemoryError(f"{name} does not fit into memory ({reason(lacking)})") from lacking


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
    has, errors = set[Need](), []
    for number in numbers:
        sample, _, _, failure = read_sample(dataset, number)
        if sample is None:
            errors.append(failure)
            continue
        given: dict[Need, object] = {"labels": sample.label, "masks": sample.mask, "human_maps": sample.human}
        has |= {need for need, value in given.items() if value is not None}
    if len(errors) == len(numbers):
        raise ValueError(f"No sample of the data can be read: {errors[0]}")
    return Probe(count, frozenset(has))


def numbers_of(chunk: int, size: int, count: int) -> Sequence[int]:
    """The sample indices of a chunk.

    Example:
        >>> list(numbers_of(1, size=10, count=13))
        [10, 11, 12]
    """
    return range(chunk * size, min((chunk + 1) * size, count))
