"""Datasets by their spec on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import cast

from torch.utils.data import Dataset, Subset

from captum_astro.data.human import HumanSample
from captum_astro.data.registry import Source, sources
from captum_astro.data.samples import Sample, Samples


def samples(spec: str, limit: int | None = None) -> Samples:
    """A dataset for the benchmark.

    Each format is described on the datasets page. Reading is lazy; the order is always the same.

    Args:
        spec: ``scenes``, or a name and a path, as in ``imagenet:/data/val``. For the names see
            `captum_astro.data.registry.sources`.
        limit: Maximum number of samples; for scenes 500 by default. The first ones are taken, but if the data is sorted
            by class (ImageNet and ImageNet-S in class folders), evenly spaced ones.

    Raises:
        ValueError: If the name is unknown, or ``limit`` is less than 1; and as raised by the dataset (DataError).
        FileNotFoundError: As raised by the dataset.

    Example:
        >>> data = samples("scenes", limit=3)
        >>> len(data), data[2].name, data[2].image.shape
        (3, 'scene 2', torch.Size([3, 64, 64]))
    """
    source, path = _found(spec, list(sources().values()), limit)
    if source.limited:
        return cast(Samples, source.read(path, limit))
    dataset: Samples = source.read(path)
    count = len(dataset)
    if limit is None or limit >= count:
        return dataset
    spread = getattr(dataset, "by_class", False)
    chosen = [i * count // limit for i in range(limit)] if spread else range(limit)
    return Subset(cast(Dataset[Sample], dataset), chosen)


def human_samples(spec: str, limit: int | None = None) -> Iterable[HumanSample]:
    """Images with human attention maps.

    Args:
        spec: ``scenes``; ``clickme:PATH``, in any format that `ClickMe` reads; or ``boxes:FOLDER``, with a
            ``boxes.csv``.
        limit: Maximum number of samples; for scenes 500 by default.

    Raises:
        ValueError: If the name is unknown, or ``limit`` is less than 1.

    Example:
        >>> len(list(human_samples("scenes", limit=3)))
        3
    """
    source, path = _found(spec, [source for source in sources().values() if source.human is not None], limit)
    assert source.human is not None
    return islice(source.human(path, limit), limit)


def _found(spec: str, known: list[Source], limit: int | None) -> tuple[Source, Path]:
    """The source that a spec names, and its path; the limit is only checked."""
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise ValueError(f"limit must be at least 1, not {limit!r}; or None for all.")
    word, colon, path = spec.partition(":")
    source = next((source for source in known if source.word == word), None)
    if source is None or bool(colon) != bool(source.place):
        *forms, last = (source.form for source in known)
        raise ValueError(f"--data must be {', '.join(forms)} or {last}, not {spec!r}.")
    if source.place and not path.strip():
        raise ValueError(f"--data must be {source.form}: {spec!r} names none. The current folder is './'.")
    return source, Path(path)
