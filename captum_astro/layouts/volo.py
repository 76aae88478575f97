"""timm's VOLO: outlook attention in overlapping windows, then attention, a class token, and classes of each patch."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from timm.models.volo import VOLO, Downsample, Outlooker
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, first_map, outlook_map
from captum_astro.layouts.base import Layout, register_layout
from captum_astro.layouts.convolution import convolution, dense_weight
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.joining import joining
from captum_astro.layouts.steps import Linear, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Merging, Stage


@register_layout(VOLO)
class VOLOLayout(Layout):
    """Blocks are numbered consecutively, those of the class token last. The class token is none of the first tokens.

    Raises:
        UnsupportedModelError: If the model returns all of its tokens, has no class token, or adds its positions
            anywhere but after a first reduction of its tokens.
    """

    num_prefix_tokens = 0

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        network, post = self._model.network, self._model.post_network
        if self._model.global_pool not in ("token", "avg") or post is None or not isinstance(network[1], Downsample):
            raise UnsupportedModelError(
                "VOLO returns all of its tokens, has no class token, or does not reduce its tokens after the first "
                "stage. Create it with global_pool='token', as timm registers it."
            )
        self.stages = []
        number = 0
        for index, part in enumerate(network):
            if isinstance(part, Downsample):
                positions = self._model.pos_embed if index == 1 else None
                self.stages.append(Stage(number, Tap(part), merging=_merging(part, f"network.{index}", positions)))
                continue
            for inner, block in enumerate(part):
                self.stages += _block(block, number, f"network.{index}.{inner}")
                number += 1
        self.stages.append(Stage(number, Tap(block, "output"), merging=joining(self._model.cls_token)))
        for index, block in enumerate(post):
            self.stages += _class_block(block, number + index, f"post_network.{index}")
        self.final_stream = Tap(self._model.norm)
        if self._model.aux_head is not None:
            self.votes = (Tap(self._model.aux_head, "output"), 0.5)

    def grid(self, height: int, width: int) -> Grid:
        stem, side = self._model.patch_embed.conv[0], self._model.patch_embed.proj.stride
        rows, columns = (
            -(-length // int(step)) // int(patch)
            for length, step, patch in zip((height, width), stem.stride, side, strict=True)
        )
        return rows, columns

    def extent(self, height: int, width: int) -> tuple[int, int]:
        stem, side, grid = (
            self._model.patch_embed.conv[0],
            self._model.patch_embed.proj.stride,
            self.grid(height, width),
        )
        return grid[0] * int(stem.stride[0] * side[0]), grid[1] * int(stem.stride[1] * side[1])

    def readout(self, tokens: int) -> torch.Tensor:
        weights = torch.zeros(tokens, dtype=torch.float64)
        weights[slice(1) if self._model.global_pool == "token" else slice(None)] = 1
        return weights / weights.sum()


def _block(block: Any, index: int, path: str) -> list[Stage]:
    attn, name, entering = block.attn, f"{path}.attn", Tap(block.norm1, "output")
    project = (Linear(attn.proj.weight, attn.proj.bias),)
    if isinstance(block, Outlooker):
        sides = ((attn.kernel_size,) * 2, (attn.stride,) * 2, (attn.padding,) * 2)
        windows = partial(_windows, sides=sides)
        attention = AttentionBranch(
            name,
            attn,
            project,
            lambda: attn.v.weight.reshape(attn.num_heads, -1, attn.v.in_features),
            entering=entering,
            outputs=windows,
            sources=windows,
            windows=2,
            overlapping=True,
        )
    else:
        attention = AttentionBranch(
            name,
            attn,
            project,
            lambda: attn.qkv.weight[2 * attn.qkv.in_features :].reshape(attn.num_heads, -1, attn.qkv.in_features),
            entering=entering,
        )
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.drop_path2, "output"))
    return [Stage(index, Tap(block.norm1), (attention,)), Stage(index, Tap(block.norm2), (feed_forward,))]


def _class_block(block: Any, index: int, path: str) -> list[Stage]:
    """Both layers change the class token only; the second one sees nothing else."""
    attn = block.attn
    attention = AttentionBranch(
        f"{path}.attn",
        attn,
        (Linear(attn.proj.weight, attn.proj.bias),),
        lambda: attn.kv.weight.chunk(2)[1].reshape(attn.num_heads, attn.head_dim, -1),
        entering=Tap(block.norm1, "output"),
        outputs=_class_token,
    )
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.drop_path2, "output"), outputs=_class_token)
    return [
        Stage(index, Tap(block.norm1), (attention,)),
        Stage(index, Tap(block.norm2), (feed_forward,), leading=True),
    ]


def _merging(down: Any, name: str, positions: torch.Tensor | None) -> Merging:
    """A convolution, after which positions may be added."""
    merging = convolution(down.proj, name, None)
    bias = down.proj.bias if positions is None else down.proj.bias + positions.flatten(1, 2)
    return Merging(name, merging.tokens, (Linear(dense_weight(down.proj), bias),))


def _windows(grid: Grid, sides: tuple[Grid, Grid, Grid]) -> TokenMap:
    return outlook_map(grid, *sides)


def _class_token(grid: Grid) -> TokenMap:
    return first_map(1 + grid[0] * grid[1], 1)
