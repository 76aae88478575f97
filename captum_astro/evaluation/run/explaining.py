"""The maps of all methods for a batch of images, with failures of single images recorded separately."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from captum_astro.data.transforms import ModelTransform
from captum_astro.evaluation.run.batches import Batch, Job
from captum_astro.evaluation.run.failures import Failure
from captum_astro.evaluation.run.maps import Maps
from captum_astro.evaluation.specification.methods import Method

NOT_FINITE = Failure("ValueError", "the map holds NaN or infinite values", "method")
Failures = dict[tuple[str, int, str], Failure]  # by method, index in the batch and explained class


class Explaining:
    """Computes maps with one model.

    A method that fails on a batch is retried on each image separately, so that only the failing image has no map.

    Args:
        model: In eval mode.
        methods: The methods; one that does not support the model fails on every image.
        transform: The transform of the model.
        batch_size: The number of images explained together.
        seed: Random seed.
    """

    def __init__(
        self, model: nn.Module, methods: Sequence[Method], transform: ModelTransform, batch_size: int, seed: int
    ) -> None:
        self._transform, self._batch_size = transform, batch_size
        self._type = next(model.parameters()).dtype
        self._methods = [(method, _built(method, model, seed)) for method in methods]

    def __call__(self, batch: Batch, numbers: Sequence[int], roles: Sequence[str]) -> tuple[list[Job], Failures]:
        """All maps of a batch; one map serves both roles if it is the same.

        Args:
            batch: B images.
            numbers: Their indices in the dataset.
            roles: ``predicted``, ``true``, or both.
        """
        jobs: list[Job] = []
        failures: Failures = {}
        for method, maps in self._methods:
            own: dict[int, Job] = {}
            for role in roles:
                classes = batch.predicted if role == "predicted" else batch.labels
                wanted: list[int] = []
                for i, chosen in enumerate(classes):
                    if chosen is None:
                        continue
                    same = not method.of_class or chosen == batch.predicted[i]
                    if i in own and same:
                        own[i].classes[role] = chosen
                    elif same and (method.name, i, "predicted") in failures:
                        failures[method.name, i, role] = failures[method.name, i, "predicted"]
                    else:
                        wanted.append(i)
                found = self._explained(maps, wanted, [classes[i] for i in wanted], numbers, batch)
                for i, one in zip(wanted, found, strict=True):
                    if isinstance(one, Failure):
                        failures[method.name, i, role] = one
                    else:
                        jobs.append(Job(method.name, i, one, {role: classes[i] or 0}))
                        own.setdefault(i, jobs[-1])
        return jobs, failures

    def _explained(
        self, maps: Maps | Failure, images: Sequence[int], classes: Sequence[Any], numbers: Sequence[int], batch: Batch
    ) -> list[torch.Tensor | Failure]:
        """A map or a failure for each image."""
        if isinstance(maps, Failure):
            return [maps] * len(images)
        if not images:
            return []
        try:
            inputs = self._transform.normalise(batch.pixels[list(images)]).to(self._type)
            found = maps(inputs, classes, [numbers[i] for i in images], self._batch_size)
        except Exception as error:
            why = Failure.of(error, "method")
            if len(images) == 1:
                return [why]
            alone = (self._explained(maps, [i], [c], numbers, batch) for i, c in zip(images, classes, strict=True))
            return [one for part in alone for one in part]
        finite = found.isfinite().flatten(1).all(1).tolist()
        return [one if fine else NOT_FINITE for one, fine in zip(found, finite, strict=True)]


def _built(method: Method, model: nn.Module, seed: int) -> Maps | Failure:
    try:
        return Maps(method, model, seed)
    except Exception as error:
        return Failure.of(error, "method")
