"""timm's Twins (PCPVT and SVT): attention in windows and to reduced keys in turn, positions by convolution."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from timm.models.twins import LocallyGroupedAttn, Twins
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, window_map
from captum_astro.layouts.averaged import AveragedLayout, check_average
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.convolution import POSITIONAL, convolution
from captum_astro.layouts.reduced_keys import attention_with_reduced_keys
from captum_astro.layouts.steps import Linear, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Stage


@register_layout(Twins)
class TwinsLayout(AveragedLayout):
    """Blocks are numbered consecutively through all stages. The tokens are those of the first stage's grid.

    Raises:
        UnsupportedModelError: If the model does not use average pooling.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        check_average(model, self._model.global_pool)
        self.stages = []
        number = 0
        for part, (embed, blocks) in enumerate(zip(self._model.patch_embeds, self._model.blocks, strict=True)):
            if part:
                merging = convolution(embed.proj, f"patch_embeds.{part}", embed.norm)
                self.stages.append(Stage(number, Tap(embed, channels="first"), merging=merging))
            for index, block in enumerate(blocks):
                self.stages += _block(block, number, f"blocks.{part}.{index}")
                if index == 0:
                    self.stages.append(_positions(self._model.pos_block[part], number, f"pos_block.{part}"))
                number += 1
        self.final_stream = Tap(self._model.norm)
        self.pooled = (Tap(self._model.norm, "output"), Tap(self._model.head_drop))

    def grid(self, height: int, width: int) -> Grid:
        rows, columns = self._model.patch_embeds[0].patch_size
        return height // int(rows), width // int(columns)

    def extent(self, height: int, width: int) -> tuple[int, int]:
        (rows, columns), patch = self.grid(height, width), self._model.patch_embeds[0].patch_size
        return rows * int(patch[0]), columns * int(patch[1])


def _block(block: Any, index: int, path: str) -> list[Stage]:
    attn, name, entering = block.attn, f"{path}.attn", Tap(block.norm1, "output")
    if isinstance(attn, LocallyGroupedAttn):
        attention = _local(attn, name, entering)
    else:
        attention = attention_with_reduced_keys(attn, name, entering)
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.drop_path2, "output"))
    return [Stage(index, Tap(block.norm1), (attention,)), Stage(index, Tap(block.norm2), (feed_forward,))]


def _local(attn: Any, name: str, entering: Tap) -> AttentionBranch:
    windows = partial(_windows, size=(attn.ws, attn.ws))
    return AttentionBranch(
        name,
        attn,
        (Linear(attn.proj.weight, attn.proj.bias),),
        lambda: attn.qkv.weight[2 * attn.dim :].reshape(attn.num_heads, -1, attn.dim),
        entering=entering,
        outputs=windows,
        sources=windows,
        windows=1,
    )


def _windows(grid: Grid, size: Grid) -> TokenMap:
    return window_map(grid, size)


def _positions(convolved: Any, index: int, name: str) -> Stage:
    added = FeedForwardBranch(name, Tap(convolved.proj, "output", "first"), approximate=POSITIONAL)
    return Stage(index, Tap(convolved), (added,))
