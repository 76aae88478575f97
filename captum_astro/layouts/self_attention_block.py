"""The block of BoTNet and HaloNet: a bottleneck with attention over all tokens, or over blocks and their neighbours."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from timm.layers.bottleneck_attn import BottleneckAttn
from timm.layers.halo_attn import HaloAttn
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, convolution_map, kernel_map, window_map
from captum_astro.layouts.convolution import dense_weight, normalised, normalised_convolution
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Activation, Scale, Step, Tap
from captum_astro.layouts.structure import AttentionBranch, Stage

_AVERAGED = (
    "an activation stands behind averages of its heads' outputs; the vectors are measured without the activation"
)


def attends(block: Any) -> bool:
    """Whether the attention of a ``SelfAttnBlock`` is a map over tokens."""
    return isinstance(block.self_attn, BottleneckAttn | HaloAttn)


def self_attention_block(block: Any, index: int, path: str) -> list[Stage]:
    """Describe a ``SelfAttnBlock``: one add, followed by an activation.

    Args:
        block: The block.
        index: Its number.
        path: Its dotted path.

    Raises:
        UnsupportedModelError: If it adds to nothing, or its attention is no map over tokens.
    """
    if block.shortcut is None or not attends(block):
        what = "adds to nothing" if block.shortcut is None else f"has a {type(block.self_attn).__name__}"
        raise UnsupportedModelError(
            f"{path} {what}, which no matrix over the tokens describes. BoTNet and HaloNet have a layout "
            f"(botnet26t_256, halonet26t); TokenGradCAM needs none."
        )
    merging = None
    if not isinstance(block.shortcut, nn.Identity):
        if not isinstance(getattr(block.shortcut, "bn", None), nn.BatchNorm2d):
            raise UnsupportedModelError(
                f"{path}.shortcut is no convolution with a batch norm. Set downsample='conv1x1'."
            )
        merging = normalised_convolution(block.shortcut.conv, block.shortcut.bn, f"{path}.shortcut")
    summed = Tap(block.act, channels="first")
    return [Stage(index, Tap(block, channels="first"), (_attention(block, path),), summed, merging)]


def _attention(block: Any, path: str) -> AttentionBranch:
    attn, last = block.self_attn, block.conv3_1x1
    halo = isinstance(attn, HaloAttn)
    averaged = not isinstance(attn.pool, nn.Identity)
    outputs = partial(_averaged, size=attn.block_size if halo else None) if averaged else None
    if halo and not averaged:
        outputs = partial(_blocks, size=attn.block_size_ds)
    if not isinstance(block.conv2_kxk, nn.Identity):
        raise UnsupportedModelError(f"{path} has a convolution before its attention. Create it without extra_conv.")
    return AttentionBranch(
        f"{path}.self_attn",
        attn,
        (*_after(block.post_attn, averaged, halo), normalised(dense_weight(last.conv), last.conv.bias, last.bn)),
        None,  # they read what an activation makes of the tokens
        outputs=outputs,
        sources=partial(_halo, block=attn.block_size, size=attn.win_size, halo=attn.halo_size) if halo else None,
        heads=attn.num_heads,
        windows=2 if halo else None,
        approximate=_AVERAGED if averaged else None,
        output=Tap(last, "output", "first") if averaged else None,
    )


def _after(norm: Any, averaged: bool, windows: bool) -> tuple[Step, ...]:
    """A batch norm after the heads with its activation, which is left out, with the constant, behind averages."""
    if isinstance(norm, nn.Identity):
        return ()
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    if averaged:
        return (Scale(scale),)
    shift = norm.bias - norm.running_mean * scale
    return (Activation(norm.act, "first", scale=scale, shift=shift, after_windows=windows),)


def _blocks(grid: Grid, size: int) -> TokenMap:
    return window_map(grid, (size, size))


def _halo(grid: Grid, block: int, size: int, halo: int) -> TokenMap:
    """The tokens of each block and around it."""
    seen = kernel_map(grid, (size, size), (block, block), (halo,) * 4)
    return TokenMap(seen.index[0][..., None], seen.tokens)


def _averaged(grid: Grid, size: int | None) -> TokenMap:
    """Queries of a grid twice as fine, four of which are averaged; of each block in turn, if there are any."""
    fine = 2 * grid[0], 2 * grid[1]
    new = torch.empty(fine[0] * fine[1], dtype=torch.long)
    for token, four in enumerate(convolution_map(fine, (2, 2), (2, 2)).index[0]):
        new[four] = token
    index = new[None] if size is None else new[window_map(fine, (size, size)).index[..., 0]]
    return TokenMap(index[..., None], grid[0] * grid[1], share=torch.full((1, *index.shape, 1), 0.25), padded=False)
