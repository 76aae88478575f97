"""Captum's methods that need no gradient, on the patches of a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from captum.attr import KernelShap, Lime, Occlusion
from torch import nn

from captum_astro.astro.vita import ViTA
from captum_astro.evaluation.specification.methods import OCCLUSION, Method
from captum_astro.layouts.base import layout_for

SAMPLES, _AT_ONCE = 500, 16
_SAMPLED: dict[str, type[Lime]] = {"Lime": Lime, "KernelShap": KernelShap}
PATCHED = (OCCLUSION, *_SAMPLED)


class PatchMaps:
    """Maps of Captum's Occlusion, Lime or KernelShap, one value for each patch that the model reads.

    A patch is removed by zeros, the mean colour of normalised images. Occlusion removes one at a time; Lime and
    KernelShap fit a linear model to random subsets, 500 by default, with Captum's settings.

    Args:
        method: The method.
        model: In eval mode.

    Raises:
        UnsupportedModelError: If the model's patches are not known.
    """

    def __init__(self, method: Method, model: nn.Module) -> None:
        self._name = method.name.partition(":")[0]
        self._samples = method.calling.get("samples", SAMPLES)
        self._model = model
        self._layout = layout_for(model.model if isinstance(model, ViTA) else model)

    def __call__(self, inputs: torch.Tensor, target: Sequence[int], seed_of: Callable[[int], int]) -> torch.Tensor:
        """Explain some samples, one after the other.

        Args:
            inputs: The model's inputs, ``(B, 3, H, W)``.
            target: The class of each.
            seed_of: The seed of a sample, by its index.

        Returns:
            ``(B, H, W)`` float32.
        """
        grid = self._layout.grid(*inputs.shape[-2:])
        devices = [inputs.device] if inputs.is_cuda else []
        maps = []
        for i, image in enumerate(inputs.split(1)):
            with torch.no_grad(), torch.random.fork_rng(devices):
                torch.manual_seed(seed_of(i))
                maps.append(self._one(image, target[i], grid))
        return torch.cat(maps)[:, 0].detach().float()  # every channel has the value of its patch

    def _one(self, image: torch.Tensor, target: int, grid: tuple[int, int]) -> Any:
        if self._name == OCCLUSION:
            height, width = (-(-side // cells) for side, cells in zip(image.shape[-2:], grid, strict=True))
            window = (image.shape[1], height, width)
            occlusion = Occlusion(self._model)
            return occlusion.attribute(image, window, window, target=target, perturbations_per_eval=_AT_ONCE)
        return _SAMPLED[self._name](self._model).attribute(
            image,
            target=target,
            feature_mask=patch_mask(grid, image.shape[-2:]).to(image.device),
            n_samples=self._samples,
            perturbations_per_eval=_AT_ONCE,
        )


def patch_mask(grid: tuple[int, int], size: Sequence[int]) -> torch.Tensor:
    """The number of the patch that each pixel belongs to, row by row, as Captum's ``feature_mask``.

    Args:
        grid: Rows and columns of patches.
        size: Height and width in pixels.

    Returns:
        ``(1, 1, H, W)`` int64.

    Example:
        >>> patch_mask((2, 1), (4, 2))[0, 0].tolist()
        [[0, 0], [0, 0], [1, 1], [1, 1]]
    """
    rows, columns = grid
    numbers = torch.arange(rows * columns, dtype=torch.float64).reshape(1, 1, rows, columns)
    return F.interpolate(numbers, tuple(size), mode="nearest-exact").long()
