"""The deletion and the insertion curve of one image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from captum_astro.capture.guard import private
from captum_astro.data.view import View
from captum_astro.metrics.perturbation import area_under_curve, class_probability
from captum_astro.metrics.perturber import Perturber
from captum_astro.viz.images import displayable
from captum_astro.viz.maps import pixel_map

_TOGETHER = 16  # images that are run at a time


class Curve(NamedTuple):
    """The probability of the explained class, from an unchanged image to a black one and back.

    Attributes:
        deletion: ``(steps + 1,)``, as pixels become black, the most important first. The lower, the better the map.
        insertion: ``(steps + 1,)``, as they return to a black image, the most important first. The higher, the better.
    """

    deletion: torch.Tensor
    insertion: torch.Tensor

    @property
    def areas(self) -> tuple[float, float]:
        """The areas under the two, from 0 to 1."""
        deletion, insertion = area_under_curve(torch.stack(self)).tolist()
        return deletion, insertion


def curves(
    model: nn.Module, x: torch.Tensor, maps: torch.Tensor, targets: Sequence[int], view: View, steps: int = 20
) -> list[Curve]:
    """Both curves of every map of one image, by the benchmark's own perturbation.

    Args:
        model: The classifier.
        x: Its input, ``(1, C, H, W)``.
        maps: ``(M, C, H, W)`` or ``(M, H, W)``.
        targets: The explained class of each map.
        view: The model's preprocessing.
        steps: The number of equal steps.

    Raises:
        ValueError: If a value of a map is not finite, or the model does not return ``(B, classes)``.

    Example:
        >>> import timm
        >>> model = timm.create_model("scenes_vit_tiny_patch4_64", pretrained=True).eval()
        >>> found = curves(model, torch.rand(1, 3, 64, 64), torch.rand(1, 64, 64), [3], View(model), steps=4)
        >>> found[0].deletion.shape, bool(found[0].deletion[0] == found[0].insertion[-1])
        (torch.Size([5]), True)
    """
    mean, std = (x.new_tensor(values).reshape(1, -1, 1, 1) for values in (view.mean, view.std))
    with private(model) as replica:
        engine = Perturber(replica.model, lambda pixels: (pixels - mean) / std, steps=steps, batch_size=_TOGETHER)
        pixels = displayable(x, view.mean, view.std)
        owner = torch.zeros(len(maps), dtype=torch.int64)
        found = engine.curves(pixels, pixel_map(maps).detach(), engine.untouched(pixels), owner)
    classes = torch.as_tensor(targets)
    deletion, kept = (class_probability(logits, classes) for logits in found)
    return [Curve(*pair) for pair in zip(deletion, kept.flip(1), strict=True)]
