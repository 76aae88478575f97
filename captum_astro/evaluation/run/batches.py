"""Images with the model's output, and maps to be scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from captum_astro.metrics.declaration import Need


class Batch(NamedTuple):
    """Images and their annotations.

    Attributes:
        pixels: ``(B, 3, S, S)`` in [0, 1], on the model's device.
        logits: ``(B, classes)``, of the unperturbed images.
        predicted: The class that is explained as the predicted one, for each image.
        labels: The true class of each, or None.
        masks: ``(S, S)`` of each, or None.
        humans: ``(S, S)`` of each, or None.
    """

    pixels: torch.Tensor
    logits: torch.Tensor
    predicted: Sequence[int]
    labels: Sequence[int | None]
    masks: Sequence[torch.Tensor | None]
    humans: Sequence[torch.Tensor | None]

    def known(self, need: Need) -> Sequence[Any]:
        """One kind of annotation for each image, or None: labels, masks or human maps."""
        return {"labels": self.labels, "masks": self.masks, "human_maps": self.humans}[need]


class Job(NamedTuple):
    """One map.

    Attributes:
        method: Its method.
        image: The index of its image in the batch.
        map: ``(S, S)``.
        classes: The explained class, by ``predicted`` and ``true``: both if one map serves both.
    """

    method: str
    image: int
    map: torch.Tensor
    classes: dict[str, int]
