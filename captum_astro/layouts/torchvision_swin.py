"""torchvision's Swin Transformers, v1 and v2."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, merge_map, window_map
from captum_astro.layouts.averaged import AveragedLayout
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.blocks import describe_blocks, register_block
from captum_astro.layouts.steps import Linear, Norm, Step, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Merging, Stage

_LIBRARY = "torchvision.models.swin_transformer"


@register_layout(f"{_LIBRARY}.SwinTransformer")
class TorchvisionSwinLayout(AveragedLayout):
    """``features``: a stem, then blocks and mergings in turn. Blocks are numbered through all stages.

    The tokens are those of the first stage's grid.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        self.stages = []
        block, (self._stem, *parts) = 0, list(self._model.features)
        for number, part in enumerate(parts, 1):
            path = f"features.{number}"
            if isinstance(part, nn.Sequential):
                self.stages += describe_blocks(part, path, block)
                block += len(part)
            else:
                self.stages.append(_merging(part, block, path))
        self.final_stream = Tap(self._model.norm)
        self.pooled = (Tap(self._model.norm, "output"), Tap(self._model.flatten, "output"))

    def grid(self, height: int, width: int) -> Grid:
        rows, columns = self._stem[0].stride
        return height // int(rows), width // int(columns)

    def extent(self, height: int, width: int) -> tuple[int, int]:
        (rows, columns), grid = self._stem[0].stride, self.grid(height, width)
        return grid[0] * int(rows), grid[1] * int(columns)


@register_block(f"{_LIBRARY}.SwinTransformerBlock")
def _pre_norm(block: Any, index: int, path: str) -> list[Stage]:
    attention = _attention(block.attn, f"{path}.attn", ())
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.mlp, "output"))
    return [Stage(index, Tap(block.norm1), (attention,)), Stage(index, Tap(block.norm2), (feed_forward,))]


@register_block(f"{_LIBRARY}.SwinTransformerBlockV2")
def _post_norm(block: Any, index: int, path: str) -> list[Stage]:
    attention = _attention(block.attn, f"{path}.attn", (Norm(block.norm1, after_windows=True),))
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.norm2, "output"))
    return [Stage(index, Tap(block), (attention,)), Stage(index, Tap(block.mlp), (feed_forward,))]


def _attention(attn: Any, name: str, after: tuple[Step, ...]) -> AttentionBranch:
    windows = partial(_windows, size=tuple(attn.window_size), shift=tuple(attn.shift_size))

    def in_windows(x: torch.Tensor) -> torch.Tensor:  # the layer receives whole images (B, H, W, C)
        return windows((x.shape[1], x.shape[2])).to(x.device).gather(x.flatten(1, 2))

    return AttentionBranch(
        name,
        attn,
        (Linear(attn.proj.weight, attn.proj.bias), *after),
        lambda: attn.qkv.weight.chunk(3)[2].unflatten(0, (attn.num_heads, -1)),
        reads=Tap(attn, arrange=in_windows),
        entering=Tap(attn),
        outputs=windows,
        sources=windows,
    )


def _windows(grid: Grid, size: Grid, shift: Grid) -> TokenMap:
    """Windows are not shifted along a side that one of them covers."""
    rows, columns = (0 if one >= side else by for side, one, by in zip(grid, size, shift, strict=True))
    return window_map(grid, size, (rows, columns), padded_first=True)


def _merging(downsample: Any, block: int, name: str) -> Stage:
    reduction, norm = Linear(downsample.reduction.weight), Norm(downsample.norm)
    norm_first = downsample.norm.normalized_shape[0] == downsample.reduction.in_features
    steps: tuple[Step, ...] = (norm, reduction) if norm_first else (reduction, norm)
    return Stage(block, Tap(downsample), merging=Merging(name, merge_map, steps))
