"""How many samples run at a time: a given number, or as many as fit into memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol, TypeVar

import torch

from captum_astro.attr._memory import Peak, free_memory
from captum_astro.kinds import whole

Result = TypeVar("Result")
_SHARE = 0.5  # of the free memory: operations need some for themselves, and so do other programs
_SIZE = whole(least=1)


class Split(Protocol):
    """Runs some samples a few at a time, and yields what each part gives."""

    def __call__(self, samples: list[int], run: Callable[[list[int]], Result]) -> Iterator[Result]: ...


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
    return partial(_fixed, most if size is None else int(size))


def _fixed(size: int | None, samples: list[int], run: Callable[[list[int]], Result]) -> Iterator[Result]:
    step = size or len(samples)
    for start in range(0, len(samples), step):
        yield run(samples[start : start + step])


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

    def __call__(self, samples: list[int], run: Callable[[list[int]], Result]) -> Iterator[Result]:
        """Run samples that can be run together.

        Args:
            samples: Their indices.
            run: Runs some of them; it may be called again with fewer.

        Yields:
            The result of each part.

        Raises:
            torch.OutOfMemoryError: If a single sample does not fit.
        """
        size = self._most or len(samples)
        if self._measured and len(samples) > 1:
            with Peak() as peak:
                first = run(samples[:1])
            yield first
            samples, size = samples[1:], min(size, max(1, int(_SHARE * free_memory() / max(1, peak.bytes))))
        while samples:
            part = samples[:size]
            found = self._tried(part, run)
            if found is None:
                size = self._most = len(part) // 2
                self._release()
                continue
            yield found
            samples = samples[size:]

    def _tried(self, part: list[int], run: Callable[[list[int]], Result]) -> Result | None:
        """The result of a part; None if its memory does not suffice. What had been computed is no longer held then."""
        try:
            return run(part)
        except torch.OutOfMemoryError:
            if len(part) == 1:
                raise
            return None

    def _release(self) -> None:
        gc.collect()  # the frames of the error may hold each other
        if not self._measured:
            torch.get_device_module(self._device).empty_cache()
