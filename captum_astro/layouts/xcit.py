"""timm's XCiT: attention over channels and convolutions among the patches, then a class token that attends to all."""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.models.xcit import Xcit
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, first_map, tail_map
from captum_astro.layouts.base import Layout, register_layout
from captum_astro.layouts.convolution import DEPTHWISE
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.joining import joining
from captum_astro.layouts.steps import Linear, Scale, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Stage


@register_layout(Xcit)
class XCiTLayout(Layout):
    """The blocks of the class token are numbered after the others. The class token is none of the first tokens.

    Attention over channels mixes no tokens, once its map of channels is held constant: it is a feed-forward layer.

    Raises:
        UnsupportedModelError: If the model does not read its class token.
    """

    num_prefix_tokens = 0

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        if self._model.global_pool != "token":
            raise UnsupportedModelError(
                f"Xcit pools by {self._model.global_pool!r}, which leaves out its only attention between tokens, that "
                f"of the class token. Create it with global_pool='token'."
            )
        self.stages = []
        for number, block in enumerate(self._model.blocks):
            self.stages += _block(block, number, f"blocks.{number}")
        self.stages.append(Stage(number + 1, Tap(block, "output"), merging=joining(self._model.cls_token)))
        for index, block in enumerate(self._model.cls_attn_blocks):
            self.stages += _class_block(block, number + 1 + index, f"cls_attn_blocks.{index}")
        self.final_stream = Tap(self._model.norm)

    def grid(self, height: int, width: int) -> Grid:
        patch = int(self._model.patch_embed.patch_size)
        return -(-height // patch), -(-width // patch)

    def extent(self, height: int, width: int) -> tuple[int, int]:
        patch, (rows, columns) = int(self._model.patch_embed.patch_size), self.grid(height, width)
        return patch * rows, patch * columns

    def readout(self, tokens: int) -> torch.Tensor:
        weights = torch.zeros(tokens, dtype=torch.float64)
        weights[0] = 1
        return weights


def _block(block: Any, index: int, path: str) -> list[Stage]:
    channels = FeedForwardBranch(f"{path}.attn", Tap(block.attn, "output"), (Scale(block.gamma1),))
    local = FeedForwardBranch(
        f"{path}.local_mp", Tap(block.local_mp, "output"), (Scale(block.gamma3),), approximate=DEPTHWISE
    )
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.mlp, "output"), (Scale(block.gamma2),))
    return [
        Stage(index, Tap(block.norm1), (channels,)),
        Stage(index, Tap(block.norm3), (local,)),
        Stage(index, Tap(block.norm2), (feed_forward,)),
    ]


def _class_block(block: Any, index: int, path: str) -> list[Stage]:
    """The class token attends; each patch has its own norm added, and is doubled in the end, as published."""
    attn = block.attn
    attention = AttentionBranch(
        f"{path}.attn",
        attn,
        (Linear(attn.proj.weight, attn.proj.bias), Scale(block.gamma1)),
        lambda: attn.v.weight.reshape(attn.num_heads, -1, attn.v.in_features),
        entering=Tap(block.norm1, "output"),
        outputs=_class_token,
    )
    normalised = FeedForwardBranch(
        f"{path}.norm1", Tap(block.norm1, "output", arrange=_without_first), (Scale(block.gamma1),), outputs=_patches
    )
    feed_forward = FeedForwardBranch(
        f"{path}.mlp", Tap(block.mlp, "output"), (Scale(block.gamma2),), outputs=_class_token
    )
    doubled = FeedForwardBranch(f"{path}.patches", Tap(block, "output", arrange=_half), outputs=_patches)
    half = None if block.tokens_norm else Tap(block, "output", arrange=_half)
    return [
        Stage(index, Tap(block.norm1), (attention, normalised), Tap(block.norm2)),
        Stage(index, Tap(block.norm2, "output"), (feed_forward, doubled), leading=half is not None, rest=half),
    ]


def _class_token(grid: Grid) -> TokenMap:
    return first_map(1 + grid[0] * grid[1], 1)


def _patches(grid: Grid) -> TokenMap:
    return tail_map(1 + grid[0] * grid[1], 1)


def _without_first(x: torch.Tensor) -> torch.Tensor:
    return x[:, 1:]


def _half(x: torch.Tensor) -> torch.Tensor:
    """Of the patches that leave a block: what was doubled."""
    return x[:, 1:] / 2
