"""Hugging Face's Swin Transformer, v1 and v2."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, merge_map, window_map
from captum_astro.layouts.averaged import AveragedLayout
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.blocks import describe_blocks, register_block
from captum_astro.layouts.huggingface import HuggingFaceLayout, attention_of, pre_norm
from captum_astro.layouts.steps import Linear, Norm, Step, Tap
from captum_astro.layouts.structure import FeedForwardBranch, Merging, Rearrange, Stage

_V1 = "transformers.models.swin.modeling_swin"
_V2 = "transformers.models.swinv2.modeling_swinv2"


@register_layout(f"{_V1}.SwinModel", f"{_V2}.Swinv2Model")
class HuggingFaceSwinLayout(AveragedLayout, HuggingFaceLayout):
    """Stages of ``blocks`` and ``downsample``, whose final tokens are averaged; images are padded to whole patches.

    Blocks are numbered through all stages. The tokens are those of the first stage's grid.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.stages = []
        block = 0
        for number, part in enumerate(self.encoder.encoder.layers):
            path = f"encoder.layers.{number}"
            self.stages += describe_blocks(part.blocks, f"{path}.blocks", block)
            block += len(part.blocks)
            if part.downsample is not None:
                self.stages.append(_merging(part.downsample, block, f"{path}.downsample"))
        self.final_stream = Tap(self.encoder.layernorm)

    def grid(self, height: int, width: int) -> Grid:
        rows, columns = self._patch
        return -(-height // rows), -(-width // columns)


@register_block(f"{_V1}.SwinLayer")
def _block(block: Any, index: int, path: str) -> list[Stage]:
    return pre_norm(block, index, path, partial(_windows, size=block.window_size, shift=block.shift_size))


@register_block(f"{_V2}.Swinv2Layer")
def _post_norm(block: Any, index: int, path: str) -> list[Stage]:
    attention = attention_of(block, path, _fixed_windows(block.window_size, block.shift_size))
    steps = (*attention.steps, Norm(block.layernorm_before, after_windows=True))
    attention = replace(attention, steps=steps, entering=Tap(block))
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.layernorm_after, "output"))
    return [Stage(index, Tap(block), (attention,)), Stage(index, Tap(block.intermediate), (feed_forward,))]


def _fixed_windows(size: int, shift: int) -> Rearrange:
    """In v2, they do not depend on the image."""
    return lambda grid: window_map(grid, (size, size), (shift, shift), padded_first=True)


def _windows(grid: Grid, size: int, shift: int) -> TokenMap:
    """A window is at most as large as the smaller side, and is then not shifted."""
    if min(grid) <= size:
        size, shift = min(grid), 0
    return window_map(grid, (size, size), (shift, shift), padded_first=True)


def _merging(downsample: Any, block: int, name: str) -> Stage:
    reduction, norm = Linear(downsample.reduction.weight), Norm(downsample.norm)
    before = downsample.norm.normalized_shape[0] == downsample.reduction.in_features  # in v1
    steps: tuple[Step, ...] = (norm, reduction) if before else (reduction, norm)
    return Stage(block, Tap(downsample), merging=Merging(name, merge_map, steps))
