"""Attention of LowFormer and CPUBone: keys and queries of a strided convolution, outputs upsampled to all tokens."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, kernel_map, merge_map, spread_map
from captum_astro.layouts.convolution import dense_weight, normalised, normalised_convolution
from captum_astro.layouts.steps import Linear, Scale, Step, Tap
from captum_astro.layouts.structure import AttentionBranch, Merging, Rearrange

_UPSAMPLED = (
    "a transposed convolution mixes the outputs of neighbouring queries; a token is attributed to the query in whose "
    "cell it lies, with vectors of the kernel's mean"
)


def conv_attention(attn: Any, name: str, entering: Tap) -> AttentionBranch:
    """Describe a ``ConvAttention``; nearest upsampling is exact.

    Args:
        attn: The attention.
        name: Its dotted path.
        entering: The tokens that enter it, normalised if it begins with a norm.
    """
    stride, transposed = attn.att_stride, isinstance(attn.upsampling, nn.ConvTranspose2d)
    project: Any = attn.upsampling if transposed else next(iter(attn.upsampling), None)

    def value_weight() -> torch.Tensor:
        weight: torch.Tensor = attn.pwise.weight.flatten(1)
        return weight.reshape(attn.num_heads, 3, attn.head_dim, -1)[:, 2]

    steps: tuple[Step, ...] = ()
    if isinstance(attn.o_proj, nn.Conv2d):
        steps = (Linear(attn.o_proj.weight.flatten(1), attn.o_proj.bias),)
    if transposed:
        steps = (*steps, _mean(project, stride))
    elif isinstance(project, nn.Conv2d):
        steps = (*steps, Linear(project.weight.flatten(1), project.bias))
    return AttentionBranch(
        name,
        attn,
        steps,
        value_weight,
        reads=Tap(attn.pwise, channels="first"),
        outputs=None if stride == 1 else partial(_cells, size=(stride, stride)),
        reduced=_keys(attn.conv_proj, name, entering),
        output=Tap(attn, "output", "first") if transposed or stride > 1 else None,
        approximate=_UPSAMPLED if transposed else None,
    )


def _mean(conv: nn.ConvTranspose2d, stride: int) -> Step:
    """Of a transposed convolution: what it makes of queries that are all alike."""
    if conv.groups == 1:
        return Linear(conv.weight.sum((2, 3)).T / stride**2, conv.bias)
    return Scale(conv.weight.sum((1, 2, 3)) / stride**2)


def _keys(layer: Any, name: str, entering: Tap) -> Merging:
    """A depthwise convolution with a batch norm; one of even size has its own padding."""
    merged, conv = Tap(layer, "output", "first"), layer.conv
    if isinstance(conv, nn.Conv2d) and conv.kernel_size[0] % 2:
        return normalised_convolution(conv, layer.norm, name, entering, merged)
    tokens: Rearrange = _patches
    if isinstance(conv, nn.Sequential):  # stride 1, padded above and to the left
        conv, tokens = conv[1], _beside
    steps = (normalised(dense_weight(conv), conv.bias, layer.norm),)
    return Merging(name, tokens, steps, entering, merged)


def _cells(grid: Grid, size: Grid) -> TokenMap:
    return spread_map(grid, size)


def _patches(grid: Grid) -> TokenMap:
    return merge_map(grid, columns_first=False)


def _beside(grid: Grid) -> TokenMap:
    return kernel_map(grid, (2, 2), (1, 1), (1, 0, 1, 0))
