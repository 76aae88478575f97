"""What a model adds to features of the image without reading it: biases, position embeddings, class tokens."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from captum_astro.capture.operations import ADD, LINEAR, NORM, RSUB, SUB, named, needs_grad

_JOINED = named("cat", "concat", "concatenate", "stack")

_BATCH_NORM = ("running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")


class Constants:
    """The constants of one pass under propagation rules, as leaves of its graph, at which relevance arrives.

    Attributes:
        leaves: One for each constant.
        values: What each adds: the bias itself, or the bias of a batch norm after its mean is subtracted.
        of_images: Whether each has a row for every image.
    """

    of_images = False

    def __init__(self) -> None:
        self.leaves: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []

    def entered(self, tokens: torch.Tensor) -> None:
        """The tokens ``(B, n, d)`` that enter the first block, with their graph."""

    def relevance(self, arrived: tuple[torch.Tensor | None, ...], times_input: bool) -> list[torch.Tensor]:
        """The relevance of each constant, from what arrived at its leaf."""
        parts = zip(self.values, arrived, strict=True)
        return [torch.zeros_like(value) if x is None else value * x if times_input else x for value, x in parts]

    def in_sums(self, func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The arguments of an operation, with leaves for what a sum adds and a concatenation joins."""
        if func in ADD | SUB | RSUB:
            moving = next(x for x in args if needs_grad(x))
            args = tuple(x if needs_grad(x) else self._leaf(torch.as_tensor(x).to(moving)) for x in args[:2]) + args[2:]
        if func in _JOINED and args:
            args = ([x if needs_grad(x) else self._leaf(x) for x in args[0]], *args[1:])
        return args, kwargs

    def in_layers(self, func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The arguments of a layer or a norm, with a leaf for its bias."""
        if func is F.batch_norm:
            given = dict(zip(_BATCH_NORM, args[1:], strict=False)) | kwargs
            scale = (given["running_var"] + given.get("eps", 1e-5)).rsqrt()
            scale = scale if given.get("weight") is None else scale * given["weight"]
            shift = torch.zeros_like(scale) if given.get("bias") is None else given["bias"]
            return args[:1], given | {"bias": self._leaf(shift, shift - given["running_mean"] * scale)}
        place = 3 if func in NORM else 2
        if func not in LINEAR | NORM or func in (F.rms_norm, F.normalize):
            return args, kwargs
        if kwargs.get("bias") is not None:
            return args, kwargs | {"bias": self._leaf(kwargs["bias"])}
        if len(args) > place and args[place] is not None:
            args = (*args[:place], self._leaf(args[place]), *args[place + 1 :])
        return args, kwargs

    def _leaf(self, constant: torch.Tensor, value: torch.Tensor | None = None) -> torch.Tensor:
        leaf = constant.detach().clone().requires_grad_(True)
        self.leaves.append(leaf)
        self.values.append(leaf.detach() if value is None else value.detach())
        return leaf
