"""torchvision's VisionTransformer (``vit_b_16`` and its like)."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from captum_astro.functional.token_map import Grid
from captum_astro.layouts.base import Layout, register_layout
from captum_astro.layouts.blocks import describe_blocks, register_block
from captum_astro.layouts.multihead import multihead_attention
from captum_astro.layouts.readouts import mean_of
from captum_astro.layouts.steps import Tap
from captum_astro.layouts.structure import FeedForwardBranch, Stage

_LIBRARY = "torchvision.models.vision_transformer"


@register_layout(f"{_LIBRARY}.VisionTransformer")
class TorchvisionViTLayout(Layout):
    """A class token, which the head reads; images of the size that the model was created with."""

    num_prefix_tokens = 1

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        self.stages = describe_blocks(self._model.encoder.layers, "encoder.layers")
        self.final_stream = Tap(self._model.encoder.ln)

    def grid(self, height: int, width: int) -> Grid:
        return height // self._model.patch_size, width // self._model.patch_size

    def readout(self, tokens: int) -> torch.Tensor:
        return mean_of(tokens, slice(1))


@register_block(f"{_LIBRARY}.EncoderBlock")
def _block(block: Any, index: int, path: str) -> list[Stage]:
    attention = multihead_attention(block.self_attention, f"{path}.self_attention", Tap(block.ln_1, "output"))
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.mlp, "output"))
    return [Stage(index, Tap(block.ln_1), (attention,)), Stage(index, Tap(block.ln_2), (feed_forward,))]
