"""timm's TNT: a transformer inside each patch, whose result is added to the patch before every block."""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.models.tnt import TNT
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, tail_map
from captum_astro.layouts.base import Layout, register_layout
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Linear, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Stage


@register_layout(TNT)
class TNTLayout(Layout):
    """The tokens are the patches. The inner transformer sees the pixels of one patch: it is a feed-forward layer.

    Raises:
        UnsupportedModelError: If the model returns all of its tokens.
    """

    num_prefix_tokens = 1

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        if self._model.global_pool not in ("token", "avg"):
            raise UnsupportedModelError("TNT returns all of its tokens. Create it with global_pool='token' or 'avg'.")
        self.stages = []
        for index, block in enumerate(self._model.blocks):
            self.stages += _block(block, index, f"blocks.{index}")
        self.final_stream = Tap(self._model.norm)

    def grid(self, height: int, width: int) -> Grid:
        rows, columns = self._model.pixel_embed.grid_size
        return int(rows), int(columns)

    def readout(self, tokens: int) -> torch.Tensor:
        weights = torch.zeros(tokens, dtype=torch.float64)
        weights[slice(1) if self._model.global_pool == "token" else slice(1, None)] = 1
        return weights / weights.sum()


def _block(block: Any, index: int, path: str) -> list[Stage]:
    attn, last = block.attn_out, block.proj if block.norm2_proj is None else block.norm2_proj
    inner = FeedForwardBranch(f"{path}.attn_in", Tap(last, "output"), outputs=_patches)
    attention = AttentionBranch(
        f"{path}.attn_out",
        attn,
        (Linear(attn.proj.weight, attn.proj.bias),),
        lambda: attn.v.weight.reshape(attn.num_heads, -1, attn.v.in_features),
        entering=Tap(block.norm_out, "output"),
    )
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.mlp, "output"))
    return [
        Stage(index, Tap(block, number=1), (inner,)),
        Stage(index, Tap(block.norm_out), (attention,)),
        Stage(index, Tap(block.norm_mlp), (feed_forward,)),
    ]


def _patches(grid: Grid) -> TokenMap:
    return tail_map(1 + grid[0] * grid[1], 1)
