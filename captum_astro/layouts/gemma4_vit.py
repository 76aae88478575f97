"""timm's Gemma 4 encoders and classifiers: normalised values, and a norm after each branch."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.gemma4_vit import Gemma4Block, Gemma4VitClassifier, Gemma4VitEncoder
from torch import nn

from captum_astro.functional.token_map import Grid, merge_map
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.blocks import register_block
from captum_astro.layouts.steps import Linear, Norm, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Stage
from captum_astro.layouts.vision_language import EncoderLayout


@register_layout(Gemma4VitEncoder, Gemma4VitClassifier)
class Gemma4VitLayout(EncoderLayout):
    """The soft tokens of the encoder are averages of cells of patches, so an output row reads the patches of its cell.

    The projections may be clamped in trained weights. Where a limit is reached, a layer is not linear, and a pass that
    shows it is rejected.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, None)
        self._soft = self._encoder.global_pool == "soft"
        if self._soft:
            self.pooled = None  # scaled and shifted

    def grid(self, height: int, width: int) -> Grid:
        rows, columns = self._encoder.patch_size
        return height // int(rows), width // int(columns)

    def extent(self, height: int, width: int) -> tuple[int, int]:
        (rows, columns), (patch_rows, patch_columns) = self.grid(height, width), self._encoder.patch_size
        return rows * int(patch_rows), columns * int(patch_columns)

    def read_by(self, rows: torch.Tensor, grid: Grid) -> torch.Tensor:
        size = int(self._encoder.pooler.pooling_kernel_size)
        return merge_map(grid, (size, size)).to(rows.device).scatter(rows) if self._soft else rows


@register_block(Gemma4Block)
def _sandwiched(block: Any, index: int, path: str) -> list[Stage]:
    """A norm before and after each branch."""
    attn = block.attn

    def value_weight() -> torch.Tensor:
        weight: torch.Tensor = attn.v_proj.linear.weight
        return weight.reshape(attn.num_kv_heads, attn.head_dim, -1).repeat_interleave(attn.num_kv_groups, 0)

    attention = AttentionBranch(
        f"{path}.attn",
        attn,
        (Linear(attn.o_proj.linear.weight), Norm(block.norm2)),
        value_weight,
        entering=Tap(block.norm1, "output"),
        value_norm=attn.v_norm,
    )
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.norm4, "output"))
    return [Stage(index, Tap(block.norm1), (attention,)), Stage(index, Tap(block.norm3), (feed_forward,))]
