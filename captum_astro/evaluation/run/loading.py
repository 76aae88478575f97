"""Chunks of samples, ready for a device."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import NamedTuple

import torch

from captum_astro.data.samples import Samples
from captum_astro.data.transforms import ModelTransform
from captum_astro.evaluation.run.cases import Case, Failed, load_cases
from captum_astro.evaluation.run.threads import ahead


class Loaded(NamedTuple):
    """A chunk.

    Attributes:
        cases: Its samples.
        failed: Those that cannot be read.
        pixels: Of the cases, ``(B, 3, S, S)`` in [0, 1], on the CPU.
    """

    cases: list[Case]
    failed: list[Failed]
    pixels: torch.Tensor


class Loading:
    """Loads chunks for one model.

    Args:
        dataset: The samples.
        transform: The transform of the model.
        human: The side length of the human maps in pixels; None if they are not needed.
        device: Of the model; for CUDA the pixels are pinned, so that they are copied while it computes.
    """

    def __init__(self, dataset: Samples, transform: ModelTransform, human: int | None, device: torch.device) -> None:
        self._dataset, self._transform, self._human = dataset, transform, human
        self._pinned = device.type == "cuda"

    def __call__(self, numbers: Sequence[int]) -> Loaded:
        """The samples with these indices.

        Raises:
            Exception: A machine error, see `Failure.of`.
        """
        cases, failed = load_cases(self._dataset, numbers, self._transform, self._human)
        side = self._transform.size
        pixels = torch.stack([case.pixels for case in cases]) if cases else torch.empty(0, 3, side, side)
        return Loaded(cases, failed, pixels.pin_memory() if self._pinned else pixels)

    def ahead(self, chunks: Iterable[Sequence[int]], workers: int) -> Generator[Loaded]:
        """Several chunks in order, read by some threads while those before are used.

        Args:
            chunks: The indices of each.
            workers: The number of threads; one at most if the dataset is to be read ``in_order``.
        """
        return ahead(chunks, self, min(workers, 1) if getattr(self._dataset, "in_order", False) else workers)
