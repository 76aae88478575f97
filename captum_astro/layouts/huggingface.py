"""What the vision models of Hugging Face's transformers have in common: pre-norm blocks, and whole patches."""

from __future__ import annotations

import functools
from typing import Any, cast

import torch
from torch import nn

from captum_astro.functional.token_map import Grid
from captum_astro.layouts.base import Layout
from captum_astro.layouts.blocks import register_block
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Linear, Scale, Step, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Rearrange, Stage


def part(module: nn.Module, *paths: str) -> Any:
    """The first part of a module that is there, by its dotted path: versions of transformers name it differently.

    Raises:
        UnsupportedModelError: If there is none.
    """
    for path in paths:
        found = functools.reduce(lambda inner, name: getattr(inner, name, None), path.split("."), cast(Any, module))
        if found is not None:
            return found
    raise UnsupportedModelError(
        f"{type(module).__module__}.{type(module).__name__} has no {' or '.join(paths)}: this version of transformers "
        f"names its parts in a way that is not known here. Use the versions that the extra captum-astro[transformers] "
        f"allows."
    )


class HuggingFaceLayout(Layout):
    """Images are cut into whole patches; what is left at the right and at the bottom is not seen.

    Attributes:
        encoder: The part with the embeddings and the blocks: the model itself, or the one that its classifier reads.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.encoder: Any = model if hasattr(model, "embeddings") else part(model, "vision_model", "base_model")

    @property
    def _patch(self) -> tuple[int, int]:
        convolutions = (m for m in self.encoder.embeddings.modules() if isinstance(m, nn.Conv2d))
        rows, columns = next(convolutions).stride
        return int(rows), int(columns)

    def grid(self, height: int, width: int) -> Grid:
        rows, columns = self._patch
        return height // rows, width // columns

    def extent(self, height: int, width: int) -> tuple[int, int]:
        (rows, columns), patch = self.grid(height, width), self._patch
        return rows * patch[0], columns * patch[1]


def attention_of(block: nn.Module, path: str, windows: Rearrange | None = None) -> AttentionBranch:
    """Describe the attention of a pre-norm block.

    Args:
        block: The block.
        path: Its dotted path.
        windows: Which tokens are its queries and keys, if not all.
    """
    attention = part(block, "attention", "self_attn")
    value = part(attention, "v_proj", "attention.value", "self.value")
    out = part(attention, "o_proj", "out_proj", "output.dense")
    for layer in (value, out):
        if not isinstance(getattr(layer, "weight", None), torch.Tensor):
            raise UnsupportedModelError(
                f"{path} projects by a {type(layer).__name__} without a weight to read, as in a quantised model or "
                f"under an adapter. Explain the model before it was quantised, or merge its adapter first: "
                f"merge_and_unload() in peft."
            )
    names = "num_attention_heads", "num_heads", "attention.num_attention_heads", "self.num_attention_heads"
    heads = part(attention, *names)
    return AttentionBranch(
        f"{path}.attention",
        attention,
        (Linear(out.weight, out.bias), *layer_scale(block, 1)),
        lambda: value.weight.reshape(heads, -1, value.in_features),
        reads=Tap(value),
        entering=Tap(part(block, "layernorm_before", "norm1", "layer_norm1"), "output"),
        outputs=windows,
        sources=windows,
    )


def layer_scale(block: nn.Module, which: int) -> tuple[Step, ...]:
    """LayerScale: a module, or a parameter, which may be the number 1."""
    factor = getattr(getattr(block, f"layer_scale{which}", None), "lambda1", getattr(block, f"lambda_{which}", 1.0))
    return (Scale(factor),) if isinstance(factor, torch.Tensor) else ()


def pre_norm(block: nn.Module, index: int, path: str, windows: Rearrange | None = None) -> list[Stage]:
    """The two residual adds of a block."""
    before = part(block, "layernorm_before", "norm1", "layer_norm1")
    after = part(block, "layernorm_after", "norm2", "layer_norm2")
    output = part(block, "mlp", "output.dense")
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(output, "output"), layer_scale(block, 2))
    return [
        Stage(index, Tap(before), (attention_of(block, path, windows),)),
        Stage(index, Tap(after), (feed_forward,)),
    ]


register_block(
    "transformers.models.vit.modeling_vit.ViTLayer",
    "transformers.models.deit.modeling_deit.DeiTLayer",
    "transformers.models.vit_msn.modeling_vit_msn.ViTMSNLayer",
    "transformers.models.beit.modeling_beit.BeitLayer",
    "transformers.models.dinov2.modeling_dinov2.Dinov2Layer",
    "transformers.models.dinov2_with_registers.modeling_dinov2_with_registers.Dinov2WithRegistersLayer",
    "transformers.models.dinov3_vit.modeling_dinov3_vit.DINOv3ViTLayer",
    "transformers.models.clip.modeling_clip.CLIPEncoderLayer",
    "transformers.models.siglip.modeling_siglip.SiglipEncoderLayer",
    "transformers.models.siglip2.modeling_siglip2.Siglip2EncoderLayer",
)(pre_norm)
