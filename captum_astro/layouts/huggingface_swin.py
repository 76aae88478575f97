"""Hugging Face's Swin Transformer."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, merge_map, window_map
from captum_astro.layouts.averaged import AveragedLayout
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.blocks import describe_blocks, register_block
from captum_astro.layouts.huggingface import HuggingFaceLayout, pre_norm
from captum_astro.layouts.steps import Linear, Norm, Tap
from captum_astro.layouts.structure import Merging, Stage

_LIBRARY = "transformers.models.swin.modeling_swin"


@register_layout(f"{_LIBRARY}.SwinModel")
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


@register_block(f"{_LIBRARY}.SwinLayer")
def _block(block: Any, index: int, path: str) -> list[Stage]:
    return pre_norm(block, index, path, partial(_windows, size=block.window_size, shift=block.shift_size))


def _windows(grid: Grid, size: int, shift: int) -> TokenMap:
    """A window is at most as large as the smaller side, and is then not shifted."""
    if min(grid) <= size:
        size, shift = min(grid), 0
    return window_map(grid, (size, size), (shift, shift), padded_first=True)


def _merging(downsample: Any, block: int, name: str) -> Stage:
    steps = Norm(downsample.norm), Linear(downsample.reduction.weight)
    return Stage(block, Tap(downsample), merging=Merging(name, merge_map, steps))
