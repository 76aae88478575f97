"""Convolutions for propagation rules: as functions of input and weight, with their transpose."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.grad import conv1d_input, conv2d_input, conv3d_input

from captum_astro.capture.operations import CONVOLUTION

_INPUT: dict[int, Any] = {1: conv1d_input, 2: conv2d_input, 3: conv3d_input}


def reads_patches(func: Any, x: torch.Tensor, weight: torch.Tensor, given: dict[str, Any]) -> bool:
    """Whether each pixel is read once, in a patch: then a product of matrices is several times as fast."""
    size = weight.shape[2:]
    return (
        func in CONVOLUTION
        and len(size) == 2
        and _pair(given.get("stride", 1)) == size
        and given.get("padding", 0) in (0, (0, 0), "valid")
        and given.get("groups", 1) == 1
        and _pair(given.get("dilation", 1)) == (1, 1)
        and all(n % k == 0 for n, k in zip(x.shape[-2:], size, strict=True))
    )


def _pair(value: Any) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)


def of_patches(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A convolution that reads patches, ``(B, C, H, W)``, as a product of matrices."""
    height, width = weight.shape[2:]
    patches = x.unflatten(3, (-1, width)).unflatten(2, (-1, height)).permute(0, 2, 4, 1, 3, 5)
    output: torch.Tensor = patches.flatten(3) @ weight.flatten(1).T
    return output.permute(0, 3, 1, 2)


def convolution(func: Any, given: Any, like: torch.Tensor) -> tuple[Any, Any]:
    """A convolution of an input of this shape as ``(x, weight)``, and its transpose as ``(relevance, weight)``."""

    def product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = func(x, weight, None, **given)
        return result

    def back(relevance: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        if func in CONVOLUTION and not isinstance(given.get("padding"), str):  # saves a pass
            passed: torch.Tensor = _INPUT[weight.ndim - 2](like.shape, weight, relevance, **given)
            return passed
        with torch.enable_grad():
            leaf = like.requires_grad_(True)
            (found,) = torch.autograd.grad(product(leaf, weight), leaf, relevance)
        return found

    return product, back
