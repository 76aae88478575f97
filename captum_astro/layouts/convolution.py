"""Convolutions over the patch tokens, described as linear maps of the tokens under their kernel."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from timm.layers import Conv2dSame, LayerNorm2d, to_2tuple
from timm.layers.pool2d_same import MaxPool2dSame
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, convolution_map, same_map
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Linear, Norm, Step, Tap
from captum_astro.layouts.structure import Merging

DEPTHWISE = (
    "its depthwise convolution mixes neighbouring tokens; what it adds to a token is attributed to that token alone"
)
POSITIONAL = (
    "this convolution adds a mixture of neighbouring tokens as a position; it is attributed to the token it is added to"
)

CONVOLUTIONAL = (
    "its convolutions and activations mix neighbouring tokens; a new token is attributed to the old one at its place, "
    "or in equal shares to those under the kernel where tokens become fewer"
)
MAXIMUM = "each channel is the maximum over several tokens; it is attributed to the token that has the maximum"


def convolution(
    conv: nn.Conv2d, name: str, norm: nn.Module | None, entering: Tap | None = None, merged: Tap | None = None
) -> Merging:
    """A convolution as a change of resolution, with the norm after it.

    Args:
        conv: The convolution; depthwise and grouped ones are linear maps too.
        name: The dotted path of the change.
        norm: The norm of the new tokens, if there is one.
        entering: As in `Merging`.
        merged: As in `Merging`.

    Raises:
        UnsupportedModelError: If it is dilated, or pads with anything but zeros.
    """
    if conv.dilation != (1, 1) or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        raise UnsupportedModelError(
            f"{name} is a dilated convolution, or one that does not pad with zeros on all sides."
        )
    steps: tuple[Step, ...] = (Linear(dense_weight(conv), conv.bias),)
    if norm is not None:
        steps = (*steps, Norm(norm, channels="first" if isinstance(norm, LayerNorm2d) else "last"))
    return Merging(name, partial(_seen, conv=conv), steps, entering, merged)


def normalised_convolution(
    conv: nn.Conv2d, norm: Any, name: str, entering: Tap | None = None, merged: Tap | None = None
) -> Merging:
    """A convolution as a change of resolution, with the batch norm after it, which is a linear map in eval mode.

    Args:
        conv: The convolution.
        norm: The batch norm.
        name: The dotted path of the change.
        entering: As in `Merging`.
        merged: As in `Merging`.
    """
    return Merging(
        name, partial(_seen, conv=conv), (normalised(dense_weight(conv), conv.bias, norm),), entering, merged
    )


def normalised(weight: torch.Tensor, bias: torch.Tensor | None, norm: Any) -> Linear:
    """A linear map ``(out, in)`` with the batch norm after it, in eval mode."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return Linear(weight * scale[:, None], norm.bias + scale * ((0 if bias is None else bias) - norm.running_mean))


def max_pooling(pool: nn.MaxPool2d, name: str) -> Merging:
    """Max pooling as a change of resolution.

    Args:
        pool: The pooling, whose kernel is square.
        name: Its dotted path.
    """
    return Merging(name, partial(_seen, conv=pool), maximum=True, approximate=MAXIMUM)


def convolutional(name: str, strided: nn.Module | None = None, approximate: str = CONVOLUTIONAL) -> Merging:
    """Convolutions with activations in between, which no linear map describes.

    Args:
        name: Their dotted path.
        strided: The convolution or pooling among them that makes tokens fewer, if there is one.
        approximate: The rule, as in `Merging`.
    """
    seen = _each if strided is None else partial(_seen, conv=strided)
    return Merging(name, seen, shared=True, approximate=approximate)


def convolutional_block(block: nn.Module, name: str) -> Merging:
    """The same of a whole block; it is exact if all its convolutions see one token only."""
    convs = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    strided = next((conv for conv in convs if conv.stride != (1, 1)), None)
    merging = convolutional(name, strided)
    return merging if any(conv.kernel_size != (1, 1) for conv in convs) else replace(merging, approximate=None)


def dense_weight(conv: nn.Conv2d) -> torch.Tensor:
    """The weight ``(out, kernel positions * in)`` that acts on the tokens under the kernel, row by row."""
    return dense(conv.weight, conv.groups)


def dense(weight: torch.Tensor, groups: int) -> torch.Tensor:
    """The same for the weight ``(out, in / groups, rows, columns)`` of a convolution in groups of channels."""
    own: torch.Tensor = weight.unflatten(0, (groups, -1))  # each group sees its own channels only
    whole = own.new_zeros(groups, own.shape[1], groups, *own.shape[2:])
    each = torch.arange(groups, device=weight.device)
    whole[each, :, each] = own
    return whole.flatten(2, 3).flatten(0, 1).permute(0, 2, 3, 1).flatten(1)


def _each(grid: Grid) -> TokenMap:
    return convolution_map(grid, (1, 1), (1, 1))


def _seen(grid: Grid, conv: Any) -> TokenMap:
    size, stride, padding = (to_2tuple(x) for x in (conv.kernel_size, conv.stride, conv.padding))
    if isinstance(conv, Conv2dSame | MaxPool2dSame):
        return same_map(grid, size, stride)
    return convolution_map(grid, size, stride, padding)
