"""Images with what the model says of them, and maps that are to be scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from captum_astro.metrics.declaration import Need


class Batch(NamedTuple):
    """Images and what is known of them.

    Attributes:
        pixels: ``(B, 3, S, S)`` in [0, 1], on the model's device.
        logits: ``(B, classes)``, of the untouched images.
        predicted: The class of each that is explained as the predicted one.
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
        """What the data has of each image, or None: its labels, masks or human maps."""
        return {"labels": self.labels, "masks": self.masks, "human_maps": self.humans}[need]


class Job(NamedTuple):
    """One map.

    Attributes:
        method: Its method.
        image: The place of its image in the batch.
        map: ``(S, S)``.
        classes: The class explained, by ``predicted`` and ``true``: both where one map is for both.
    """

    method: str
    image: int
    map: torch.Tensor
    classes: dict[str, int]
