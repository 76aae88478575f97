"""timm's Swin Transformers, v1, v2 and v2-CR: attention in shifted windows, and patches merged between the stages."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from timm.models import swin_transformer as v1
from timm.models import swin_transformer_v2 as v2
from timm.models import swin_transformer_v2_cr as v2_cr
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, merge_map, window_map
from captum_astro.layouts.averaged import AveragedLayout, check_average
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.blocks import describe_blocks, register_block
from captum_astro.layouts.steps import Linear, Norm, Step, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Merging, Stage


@register_layout(v1.SwinTransformer, v2.SwinTransformerV2, v2_cr.SwinTransformerV2Cr)
class SwinLayout(AveragedLayout):
    """Models with ``layers`` (v2-CR: ``stages``) of ``downsample`` and ``blocks``, whose final tokens are averaged.

    Blocks are numbered consecutively through all stages. The tokens are those of the first stage's grid.

    Raises:
        UnsupportedModelError: If the model does not use average pooling.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        name = "stages" if isinstance(model, v2_cr.SwinTransformerV2Cr) else "layers"
        self.stages = []
        block = 0
        for number, part in enumerate(getattr(self._model, name)):
            path = f"{name}.{number}"
            if not isinstance(part.downsample, nn.Identity):
                self.stages.append(_merging(part.downsample, block, f"{path}.downsample"))
            self.stages += describe_blocks(part.blocks, f"{path}.blocks", block)
            block += len(part.blocks)
        self.final_stream = Tap(part.blocks[-1], "output")
        pool = self._model.head.global_pool
        check_average(model, pool.pool_type)
        normalised = Tap(self._model.norm, "output") if hasattr(model, "norm") else self.final_stream
        self.pooled = (normalised, Tap(pool, "output"))

    def grid(self, height: int, width: int) -> Grid:
        rows, columns = self._model.patch_embed.patch_size
        return height // int(rows), width // int(columns)

    def extent(self, height: int, width: int) -> tuple[int, int]:
        rows, columns = self._model.patch_embed.patch_size
        return height // int(rows) * int(rows), width // int(columns) * int(columns)


@register_block(v1.SwinTransformerBlock)
def _pre_norm(block: Any, index: int, path: str) -> list[Stage]:
    attention = _attention(block, f"{path}.attn", (), Tap(block.norm1, "output"))
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.drop_path2, "output"))
    return [Stage(index, Tap(block.norm1), (attention,)), Stage(index, Tap(block.norm2), (feed_forward,))]


@register_block(v2.SwinTransformerV2Block, v2_cr.SwinTransformerV2CrBlock)
def _post_norm(block: Any, index: int, path: str) -> list[Stage]:
    attention = _attention(block, f"{path}.attn", (Norm(block.norm1, after_windows=True),), Tap(block))
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.drop_path2, "output"))
    main = getattr(block, "norm3", nn.Identity())  # of the residual stream itself, in some blocks of v2-CR
    summed = None if isinstance(main, nn.Identity) else Tap(main)
    return [Stage(index, Tap(block), (attention,)), Stage(index, Tap(block.mlp), (feed_forward,), summed)]


def _attention(block: Any, name: str, after: tuple[Step, ...], entering: Tap) -> AttentionBranch:
    attn = block.attn
    windows = partial(_windows, size=tuple(block.window_size), shift=tuple(block.shift_size))
    return AttentionBranch(
        name,
        attn,
        (Linear(attn.proj.weight, attn.proj.bias), *after),
        lambda: attn.qkv.weight[2 * len(attn.qkv.weight) // 3 :].reshape(attn.num_heads, -1, block.dim),
        entering=entering,
        outputs=windows,
        sources=windows,
    )


def _windows(grid: Grid, size: Grid, shift: Grid) -> TokenMap:
    return window_map(grid, size, shift)


def _merging(downsample: Any, block: int, name: str) -> Stage:
    reduction, norm = Linear(downsample.reduction.weight), Norm(downsample.norm)
    steps: tuple[Step, ...] = (reduction, norm) if isinstance(downsample, v2.PatchMerging) else (norm, reduction)
    return Stage(block, Tap(downsample), merging=Merging(name, merge_map, steps))
