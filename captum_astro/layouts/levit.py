"""timm's LeViT: an activation between the heads and their projection; fewer tokens by attention without a shortcut."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from timm.models.levit import Levit
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, merge_map
from captum_astro.layouts.averaged import AveragedLayout, check_average
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.convolution import normalised
from captum_astro.layouts.steps import Activation, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Merging, Stage


@register_layout(Levit)
class LeViTLayout(AveragedLayout):
    """Each attention that reduces the tokens is a block too. The tokens are those of the first stage's grid.

    Raises:
        UnsupportedModelError: If the model does not use average pooling.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        check_average(model, self._model.global_pool)
        self.stages = []
        block = 0
        for number, part in enumerate(self._model.stages):
            path, down = f"stages.{number}", part.downsample
            if not isinstance(down, nn.Identity):
                self.stages += _downsample(down, block, f"{path}.downsample")
                block += 1
            for index, one in enumerate(part.blocks):
                self.stages += _block(one, block, f"{path}.blocks.{index}")
                block += 1
        self.final_stream = Tap(self._model.stages, "output", "first")

    def grid(self, height: int, width: int) -> Grid:
        rows, columns = self._model.stages[0].blocks[0].attn.resolution
        return int(rows), int(columns)


def _block(block: Any, index: int, path: str) -> list[Stage]:
    attn = block.attn
    attention = _attention(attn, f"{path}.attn", attn.qkv, 2 * attn.key_dim)
    return [Stage(index, Tap(attn, channels="first"), (attention,)), _mlp(block, block.drop_path2, index, path)]


def _downsample(down: Any, index: int, path: str) -> list[Stage]:
    """Queries from every other token of every other row; what they attend to is all that is kept."""
    attn, name = down.attn_downsample, f"{path}.attn_downsample"
    cells = partial(_cells, size=(attn.stride, attn.stride))
    stage = Stage(
        index,
        Tap(attn, channels="first"),
        (_attention(attn, name, attn.kv, attn.key_dim),),
        merging=Merging(f"{name}.q", cells, replaced=True),
    )
    return [stage, _mlp(down, down.drop_path, index, path)]


def _mlp(block: Any, after: nn.Module, index: int, path: str) -> Stage:
    added = FeedForwardBranch(f"{path}.mlp", Tap(after, "output", "first"))
    return Stage(index, Tap(block.mlp, channels="first"), (added,))


def _attention(attn: Any, name: str, project: Any, before: int) -> AttentionBranch:
    """The projection has, for each head, ``before`` channels of queries and keys, and then the values."""
    layer = attn.proj.ln

    def value_weight() -> torch.Tensor:
        weight = normalised(project.linear.weight.flatten(1), None, project.bn).weight
        return weight.reshape(attn.num_heads, before + attn.val_dim, -1)[:, before:]

    return AttentionBranch(
        name,
        attn,
        (
            Activation(attn.proj.act, "first" if attn.use_conv else "last"),
            normalised(layer.linear.weight.flatten(1), None, layer.bn),
        ),
        value_weight,
        reads=Tap(attn, channels="first"),
    )


def _cells(grid: Grid, size: Grid) -> TokenMap:
    return merge_map(grid, size, columns_first=False)
