"""timm's CaiT: attention with talking heads among the patches, then a class token that alone attends to all tokens."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from timm.models.cait import Cait
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, first_map
from captum_astro.layouts.base import Layout, register_layout
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.joining import joining
from captum_astro.layouts.steps import Linear, Scale, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Stage


@register_layout(Cait)
class CaiTLayout(Layout):
    """The blocks of the class token are numbered after the others. The class token is none of the first tokens.

    Raises:
        UnsupportedModelError: If the model does not read its class token.
    """

    num_prefix_tokens = 0

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        if self._model.global_pool != "token":
            raise UnsupportedModelError(
                f"Cait pools by {self._model.global_pool!r}, which leaves out the blocks of its class token. Create it "
                f"with global_pool='token'."
            )
        self.stages = []
        for number, block in enumerate(self._model.blocks):
            self.stages += _block(block, number, f"blocks.{number}")
        self.stages.append(Stage(number + 1, Tap(block, "output"), merging=joining(self._model.cls_token)))
        for index, block in enumerate(self._model.blocks_token_only):
            self.stages += _class_block(block, number + 1 + index, f"blocks_token_only.{index}", self._patches)
        self.final_stream = Tap(self._model.norm)

    @property
    def _patches(self) -> int:
        return int(self._model.patch_embed.num_patches)

    def grid(self, height: int, width: int) -> Grid:
        rows, columns = self._model.patch_embed.grid_size
        return int(rows), int(columns)

    def readout(self, tokens: int) -> torch.Tensor:
        weights = torch.zeros(tokens, dtype=torch.float64)
        weights[0] = 1
        return weights


def _block(block: Any, index: int, path: str) -> list[Stage]:
    attn = block.attn
    attention = AttentionBranch(
        f"{path}.attn",
        attn,
        (Linear(attn.proj.weight, attn.proj.bias), Scale(block.gamma_1)),
        lambda: attn.qkv.weight[2 * len(attn.qkv.weight) // 3 :].reshape(attn.num_heads, -1, attn.qkv.in_features),
        entering=Tap(block.norm1, "output"),
        mixed=Tap(attn.attn_drop),  # after the heads have talked
    )
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.mlp, "output"), (Scale(block.gamma_2),))
    return [Stage(index, Tap(block.norm1), (attention,)), Stage(index, Tap(block.norm2), (feed_forward,))]


def _class_block(block: Any, index: int, path: str, patches: int) -> list[Stage]:
    """Both layers change the class token only; the second one sees nothing else."""
    attn, only = block.attn, partial(_first, tokens=patches + 1)
    attention = AttentionBranch(
        f"{path}.attn",
        attn,
        (Linear(attn.proj.weight, attn.proj.bias), Scale(block.gamma_1)),
        lambda: attn.v.weight.reshape(attn.num_heads, -1, attn.v.in_features),
        entering=Tap(block.norm1, "output"),
        outputs=only,
    )
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.mlp, "output"), (Scale(block.gamma_2),), outputs=only)
    return [
        Stage(index, Tap(block.norm1), (attention,)),
        Stage(index, Tap(block.norm2), (feed_forward,), leading=True),
    ]


def _first(grid: Grid, tokens: int) -> TokenMap:
    return first_map(tokens, 1)
