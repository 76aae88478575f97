"""ClickMe by index, as the benchmark needs it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from captum_astro.data._clickme_forms import Entry
from captum_astro.data.clickme import ClickMe
from captum_astro.data.registry import register_data
from captum_astro.data.samples import Sample, checked


@register_data("clickme", place="PATH", limited=True, human=lambda path, limit: ClickMe(path))
class ClickMeSamples(Dataset[Sample]):
    """The samples of `ClickMe`, in its order, accessible by index.

    Shards have no index of their samples. They are therefore counted in one pass, up to ``limit``; and because reading
    only goes forwards, a sample before the latest one is reached from the beginning. In order, or in any increasing
    order, it costs as much as `ClickMe`.

    Args:
        path: As in `ClickMe`.
        limit: Maximum number of samples, at least 1; None for all.

    Raises:
        FileNotFoundError: As `ClickMe`.
        ValueError: As `ClickMe`, or if the limit is less than 1; when a sample is read, CorruptRecordError if it is
            damaged.
    """

    in_order = True  # by one thread: a sample before the latest one costs a pass over those before it

    def __init__(self, path: Path | str, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}.")
        self._clickme = ClickMe(path)
        self._count = sum(1 for _ in islice(self._clickme.entries(), limit))
        self._reader: _Reader | None = None

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        checked(index, self._count)
        if self._reader is None or not self._reader.can_reach(index):
            self._reader = _Reader(self._clickme.entries())
        sample = self._clickme.sample(self._reader.entry(index))
        if sample is None:
            raise AssertionError("A damaged sample raises here.")
        return Sample(sample.image, sample.label, None, sample.human, sample.name)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}


class _Reader:
    """Entries in increasing order, for one process: a forked one would share and disturb the open file's position."""

    def __init__(self, entries: Iterator[Entry]) -> None:
        self._entries, self._next, self._process = entries, 0, os.getpid()
        self._latest: Entry | None = None

    def can_reach(self, index: int) -> bool:
        return self._process == os.getpid() and index >= self._next - 1

    def entry(self, index: int) -> Entry:
        while self._latest is None or self._next <= index:
            self._latest = next(self._entries)
            self._next += 1
        return self._latest
