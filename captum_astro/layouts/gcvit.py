"""timm's Global Context ViT: attention in windows, with queries of the whole image in every second block."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from timm.models.gcvit import GlobalContextVit
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, window_map
from captum_astro.layouts.averaged import PaddedLayout, check_average
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.convolution import DEPTHWISE, convolution
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Linear, Scale, Step, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Stage


@register_layout(GlobalContextVit)
class GCViTLayout(PaddedLayout):
    """Blocks are numbered consecutively through all stages. The tokens are those of the first stage's grid.

    The queries of the whole image decide where each window looks; what is added is made of the window's tokens.

    Raises:
        UnsupportedModelError: If the model does not use average pooling, or pools between its stages.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        check_average(model, self._model.head.global_pool.pool_type)
        self.stages = []
        number, parts = 0, list(self._model.stages)
        for part, stage in enumerate(parts):
            if not isinstance(stage.downsample, nn.Identity):
                self.stages += _downsampling(stage.downsample, number, f"stages.{part}.downsample")
            following = parts[part + 1].downsample if part + 1 < len(parts) else None
            for index, block in enumerate(stage.blocks):
                last = following is not None and index + 1 == len(stage.blocks)
                summed = Tap(following, channels="first") if last and following is not None else None
                self.stages += _block(block, number, f"stages.{part}.blocks.{index}", summed)
                number += 1
        self.final_stream = Tap(block, "output")


def _downsampling(down: Any, index: int, path: str) -> list[Stage]:
    """A convolutional block, and a convolution with its norm; the norm before them is of the stream itself."""
    if not isinstance(down.reduction, nn.Conv2d):
        raise UnsupportedModelError(
            f"{path} reduces by {type(down.reduction).__name__}, where a convolution is described."
        )
    added = FeedForwardBranch(
        f"{path}.conv_block", Tap(down.conv_block.conv_pw, "output", "first"), approximate=DEPTHWISE
    )
    merging = convolution(down.reduction, f"{path}.reduction", down.norm2)
    return [
        Stage(index, Tap(down.conv_block, channels="first"), (added,)),
        Stage(index, Tap(down.reduction, channels="first"), merging=merging),
    ]


def _block(block: Any, index: int, path: str, summed: Tap | None) -> list[Stage]:
    attn, windows = block.attn, partial(_windows, size=tuple(block.window_size))
    steps: tuple[Step, ...] = (Linear(attn.proj.weight, attn.proj.bias),)
    if not isinstance(block.ls1, nn.Identity):
        steps = (*steps, Scale(block.ls1.gamma))
    width = attn.num_heads * attn.head_dim
    attention = AttentionBranch(
        f"{path}.attn",
        attn,
        steps,
        lambda: attn.qkv.weight[-width:].reshape(attn.num_heads, attn.head_dim, -1),
        entering=Tap(block.norm1, "output"),
        outputs=windows,
        sources=windows,
    )
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.drop_path2, "output"))
    return [Stage(index, Tap(block.norm1), (attention,)), Stage(index, Tap(block.norm2), (feed_forward,), summed)]


def _windows(grid: Grid, size: Grid) -> TokenMap:
    return window_map(grid, size)
