"""How many samples run at a time: a given number, or as many as fit into memory."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch

from captum_astro.attr._memory import Peak, free_memory
from captum_astro.kinds import whole

_SHARE = 0.5  # of the free memory: operations need some for themselves, and so do other programs
_SIZE = whole(least=1)


class Split(Protocol):
    """Which samples run together: ``for some in split.parts(samples): with split.trying(): ...``."""

    def parts(self, samples: list[int]) -> Iterator[list[int]]:
        """A few samples at a time; again fewer of them if they did not fit."""

    def trying(self) -> AbstractContextManager[None]:
        """A context in which the latest part runs; it is left without an error if the part does not fit."""


def split_of(size: Any, device: torch.device, most: int | None = None) -> Split:
    """The split that ``internal_batch_size`` asks for.

    Args:
        size: A number, ``"auto"`` for as many as fit, or None for the most.
        device: Where they run.
        most: The number without a size, and at most with ``"auto"``; by default all.

    Raises:
        ValueError: If the size is anything else.
    """
    if isinstance(size, str) and size == "auto":
        return Fitting(device, most)
    if size is not None and not _SIZE.holds(size):
        raise ValueError(f"internal_batch_size must be 'auto' or {_SIZE.accepted}, not {size!r}.")
    return Fixed(most if size is None else int(size))


class Fixed:
    """A number of samples at a time; all of them for None."""

    def __init__(self, size: int | None) -> None:
        self._size = size

    def parts(self, samples: list[int]) -> Iterator[list[int]]:
        """The samples, as many at a time."""
        step = self._size or len(samples)
        for start in range(0, len(samples), step):
            yield samples[start : start + step]

    def trying(self) -> AbstractContextManager[None]:
        """Nothing is tried twice."""
        return contextlib.nullcontext()


class Fitting:
    """As many samples at a time as fit into a device's memory; what fitted is remembered.

    A GPU says when its memory is full: all samples are tried, then half as many. A CPU would not say so before the
    system swaps or ends the process: one sample is run and measured, and the others in parts that fill at most half of
    the free memory.

    Args:
        device: The device.
        most: The number to try first; by default all.
    """

    def __init__(self, device: torch.device, most: int | None = None) -> None:
        self._device, self._most = device, most
        self._measured = device.type in ("cpu", "mps")  # which share the memory of the machine
        self._peak: Peak | None = None
        self._part, self._full = list[int](), False

    def parts(self, samples: list[int]) -> Iterator[list[int]]:
        """Samples that can be run together, a few at a time.

        Args:
            samples: Their indices.

        Yields:
            Some of them, to be run in `trying`; if they do not fit, half of them next.
        """
        size = self._most or len(samples)
        if self._measured and len(samples) > 1:
            self._peak = peak = Peak()
            self._part = samples[:1]
            yield self._part
            if self._peak is None:
                size = 1
            else:
                samples, size = samples[1:], min(size, max(1, int(_SHARE * free_memory() / max(1, peak.bytes))))
            self._peak = None
        while samples:
            self._part, self._full = samples[:size], False
            yield self._part
            if not self._full:
                samples = samples[size:]
                continue
            size = self._most = len(self._part) // 2
            self._release()

    @contextlib.contextmanager
    def trying(self) -> Iterator[None]:
        """Run the latest part, and measure it if it is the first.

        Raises:
            torch.OutOfMemoryError: If a single sample does not fit.
        """
        try:
            with self._peak or contextlib.nullcontext():
                yield
        except torch.OutOfMemoryError:
            if len(self._part) == 1:
                raise
            self._full = True
        except NotImplementedError:
            if self._peak is None:
                raise
            self._peak = None  # older PyTorch cannot count within flex attention and its like: one at a time

    def _release(self) -> None:
        gc.collect()  # the frames of the error may hold each other
        if not self._measured:
            torch.get_device_module(self._device).empty_cache()
