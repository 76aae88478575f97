"""Astromorphic blocks: a norm after each residual add, and attention that is linear in the number of tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from captum_astro.layouts.blocks import attention_branch, register_block
from captum_astro.layouts.steps import Linear, Step, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Stage
from captum_astro.models.astromorphic import AstromorphicAttention, AstromorphicBlock


@register_block(AstromorphicBlock)
def astromorphic_block(block: Any, index: int, path: str) -> list[Stage]:
    """Two stages, each with its sum before the norm. The attention is effective or softmax attention."""
    attn = block.attn
    if isinstance(attn, AstromorphicAttention):
        attention = _astromorphic(attn, f"{path}.attn", Tap(block))
    else:
        attention = attention_branch(attn, f"{path}.attn", entering=Tap(block))
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.drop_path2, "output"))
    return [
        Stage(index, Tap(block), (attention,), Tap(block.norm1)),
        Stage(index, Tap(block.mlp), (feed_forward,), Tap(block.norm2)),
    ]


def _astromorphic(attention: Any, path: str, entering: Tap) -> AttentionBranch:
    heads, width = attention.num_heads, attention.head_dim
    projected = isinstance(attention.proj, nn.Linear)
    steps: tuple[Step, ...] = (Linear(attention.proj.weight, attention.proj.bias),) if projected else ()

    def value_weight() -> torch.Tensor:
        weight: torch.Tensor = attention.qkv.weight
        return weight[-heads * width :].reshape(heads, width, -1)

    return AttentionBranch(path, attention, steps, value_weight, entering=entering)
