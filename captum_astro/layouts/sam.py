"""timm's SAM encoder: attention in windows and over all tokens, then a neck of convolutions."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from timm.models.vision_transformer_sam import Block, VisionTransformerSAM
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, window_map
from captum_astro.layouts.averaged import AveragedLayout, check_average
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.blocks import describe_blocks, register_block
from captum_astro.layouts.convolution import convolution
from captum_astro.layouts.steps import Linear, Scale, Step, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Stage


@register_layout(VisionTransformerSAM)
class SAMLayout(AveragedLayout):
    """The convolution of 3 x 3 tokens in the neck is one more stage; what else the neck does changes single tokens.

    Raises:
        UnsupportedModelError: If the model does not use average pooling.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        pool, neck = self._model.head.global_pool, self._model.neck
        check_average(model, pool.pool_type)
        self.stages = describe_blocks(self._model.blocks)
        self.final_stream = last = Tap(self._model.blocks[-1], "output")
        if isinstance(neck, nn.Sequential):
            mixing: Any = neck[2]
            merging = convolution(mixing, "neck.2", None, Tap(mixing, channels="first"))
            self.stages.append(Stage(len(self._model.blocks) - 1, last, merging=merging))
            self.final_stream = Tap(mixing, "output", "first")
        self.pooled = (Tap(neck, "output", "first"), Tap(pool, "output"))

    def grid(self, height: int, width: int) -> Grid:
        rows, columns = self._model.patch_embed.dynamic_feat_size((height, width))
        return int(rows), int(columns)


@register_block(Block)
def _pre_norm(block: Any, index: int, path: str) -> list[Stage]:
    attn, size = block.attn, int(block.window_size)
    windows = partial(_windows, size=(size, size)) if size else None
    scale: tuple[Step, ...] = () if isinstance(block.ls1, nn.Identity) else (Scale(block.ls1.gamma),)
    attention = AttentionBranch(
        f"{path}.attn",
        attn,
        (Linear(attn.proj.weight, attn.proj.bias), *scale),
        lambda: attn.qkv.weight[2 * len(attn.qkv.weight) // 3 :].reshape(attn.num_heads, attn.head_dim, -1),
        entering=Tap(block.norm1, "output"),
        outputs=windows,
        sources=windows,
        heads=attn.num_heads,
    )
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.drop_path2, "output"))
    return [Stage(index, Tap(block.norm1), (attention,)), Stage(index, Tap(block.norm2), (feed_forward,))]


def _windows(grid: Grid, size: Grid) -> TokenMap:
    return window_map(grid, size)
