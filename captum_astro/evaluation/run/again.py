"""Explaining again: changed images, and models that have forgotten what they learnt."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from captum_astro.data.transforms import ModelTransform
from captum_astro.evaluation.run.maps import Maps
from captum_astro.evaluation.specification.methods import Method
from captum_astro.models.randomised import randomised_copies


class Asked(NamedTuple):
    """The method that is asked, by name, and the class to explain."""

    method: str
    explained: int


class Again:
    """Explains images that are not samples, for metrics that ask a method more than once.

    Args:
        model: In eval mode.
        methods: The methods.
        transform: The transform of the model.
        batch_size: The number of images explained together.
        seed: Random seed.
    """

    def __init__(
        self, model: nn.Module, methods: Sequence[Method], transform: ModelTransform, batch_size: int, seed: int
    ) -> None:
        self._model, self._transform, self._batch_size, self._seed = model, transform, batch_size, seed
        self._type = next(model.parameters()).dtype
        self._methods = {method.name: method for method in methods}

    def explain(self, pictures: torch.Tensor, asked: Sequence[Asked]) -> torch.Tensor:
        """The maps of some images, each by its own method.

        Args:
            pictures: ``(N, 3, S, S)``, about in [0, 1].
            asked: For each the method and the class.

        Returns:
            ``(N, S, S)`` float32.
        """
        return self._explained(self._model, pictures, asked)

    def randomised(self, pictures: torch.Tensor, asked: Sequence[Asked], *, cascading: bool) -> torch.Tensor:
        """The maps of some images on models with randomised layers, from the output to the input.

        Args:
            pictures: ``(N, 3, S, S)`` in [0, 1].
            asked: For each the method and the class.
            cascading: Whether the layers behind stay randomised.

        Returns:
            ``(N, layers, S, S)`` float32.
        """
        copies = randomised_copies(self._model, cascading=cascading, seed=self._seed)
        return torch.stack([self._explained(model, pictures, asked) for _, model in copies], 1)

    def _explained(self, model: nn.Module, pictures: torch.Tensor, asked: Sequence[Asked]) -> torch.Tensor:
        inputs = self._transform.normalise(pictures).to(self._type)
        found = torch.empty(len(inputs), *inputs.shape[2:], device=inputs.device)
        for name in dict.fromkeys(each.method for each in asked):
            places = [i for i, each in enumerate(asked) if each.method == name]
            maps = Maps(self._methods[name], model, self._seed)
            numbers = [zlib.crc32(pictures[i].cpu().numpy().tobytes()) for i in places]  # the same in every run
            found[places] = maps(inputs[places], [asked[i].explained for i in places], numbers, self._batch_size)
        return found
