"""The maps of one method on one model, whatever the method."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from captum.attr import IntegratedGradients
from torch import nn

from captum_astro.evaluation.run.patch_maps import PATCHED, PatchMaps
from captum_astro.evaluation.specification.methods import INTEGRATED, RANDOM, Method

_STEPS, _PATH_POINTS = 32, 64  # IntegratedGradients: points on the path, and how many run at a time
_CELLS = 14  # side of the random grid, as many as the patches of most Vision Transformers


class Maps:
    """Maps of one method on one model.

    Args:
        method: The method.
        model: In eval mode.
        seed: Random seed; random numbers depend only on it, the method and the sample.
    """

    def __init__(self, method: Method, model: nn.Module, seed: int) -> None:
        self._method, self._seed, self._model = method, seed, model
        self._attribution, self._patches = None, None
        if method.name.partition(":")[0] in PATCHED:
            self._patches = PatchMaps(method, model)
        if method.explainer is not None:
            self._attribution = method.explainer.method(model, **method.building)

    def __call__(self, inputs: torch.Tensor, target: Sequence[int], numbers: Sequence[int], at_once: int) -> Any:
        """Explain some samples.

        Args:
            inputs: The model's inputs, ``(B, 3, H, W)``.
            target: The class of each.
            numbers: Their indices in the dataset.
            at_once: The number of samples explained together.

        Returns:
            ``(B, H, W)`` float32.
        """
        if self._method.name == INTEGRATED:
            return self._integrated(inputs, target)
        if self._patches is not None:
            return self._patches(inputs, target, lambda i: _number(self._seed, self._method.name, numbers[i]))
        if self._attribution is None:
            return torch.stack([self._random(number, inputs) for number in numbers])
        devices = [inputs.device] if inputs.is_cuda else []
        with torch.random.fork_rng(devices), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*gives a map that is zero everywhere")
            torch.manual_seed(_number(self._seed, self._method.name, numbers[0]))
            found = self._attribution.attribute(
                inputs,
                target=torch.tensor(target, device=inputs.device),
                attribute_to="pixels",
                internal_batch_size=at_once,
                **self._method.calling,
            )
        return found[:, 0].detach().float()

    def _integrated(self, inputs: torch.Tensor, target: Sequence[int]) -> torch.Tensor:
        classes = torch.tensor(target, device=inputs.device)
        found: torch.Tensor = IntegratedGradients(self._model).attribute(
            inputs, target=classes, n_steps=_STEPS, internal_batch_size=_PATH_POINTS
        )
        return found.detach().abs().sum(1).float()

    def _random(self, number: int, inputs: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(_number(self._seed, RANDOM, number))
        cells = torch.rand(1, 1, _CELLS, _CELLS, generator=generator)
        return F.interpolate(cells, inputs.shape[-2:], mode="bilinear")[0, 0].to(inputs.device)


def _number(*parts: object) -> int:
    """A seed that depends only on the given parts."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "little")
