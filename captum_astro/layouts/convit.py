"""timm's ConViT: attention gated between content and position, and a class token that joins after those blocks."""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.models.convit import GPSA, ConVit
from torch import nn

from captum_astro.functional.token_map import Grid
from captum_astro.layouts.base import Layout, register_layout
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.joining import joining
from captum_astro.layouts.steps import Linear, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Stage


@register_layout(ConVit)
class ConViTLayout(Layout):
    """The class token is none of the first tokens.

    Raises:
        UnsupportedModelError: If the model returns all of its tokens, or its class token joins before the first block.
    """

    num_prefix_tokens = 0

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        if self._model.global_pool not in ("token", "avg"):
            raise UnsupportedModelError(
                "ConVit returns all of its tokens. Create it with global_pool='token' or 'avg'."
            )
        joins = self._model.local_up_to_layer
        if not 0 < joins < len(self._model.blocks):
            raise UnsupportedModelError(
                f"ConVit has no block before or after its class token joins. Create it with local_up_to_layer from 1 "
                f"to {len(self._model.blocks) - 1}."
            )
        self.stages = []
        for index, block in enumerate(self._model.blocks):
            if index == joins:
                merging = joining(self._model.cls_token)
                self.stages.append(Stage(index, Tap(self._model.blocks[index - 1], "output"), merging=merging))
            self.stages += _block(block, index, f"blocks.{index}")
        self.final_stream = Tap(block, "output")

    def grid(self, height: int, width: int) -> Grid:
        rows, columns = self._model.patch_embed.grid_size
        return int(rows), int(columns)

    def readout(self, tokens: int) -> torch.Tensor:
        weights = torch.zeros(tokens, dtype=torch.float64)
        weights[slice(1) if self._model.global_pool == "token" else slice(1, None)] = 1
        return weights / weights.sum()


def _block(block: Any, index: int, path: str) -> list[Stage]:
    attn = block.attn
    gated = isinstance(attn, GPSA)

    def value_weight() -> torch.Tensor:
        weight: torch.Tensor = attn.v.weight if gated else attn.qkv.weight[2 * len(attn.qkv.weight) // 3 :]
        return weight.reshape(attn.num_heads, -1, weight.shape[1])

    attention = AttentionBranch(
        f"{path}.attn",
        attn,
        (Linear(attn.proj.weight, attn.proj.bias),),
        value_weight,
        entering=Tap(block.norm1, "output"),
        mixed=Tap(attn.attn_drop) if gated else None,
    )
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.mlp, "output"))
    return [Stage(index, Tap(block.norm1), (attention,)), Stage(index, Tap(block.norm2), (feed_forward,))]
