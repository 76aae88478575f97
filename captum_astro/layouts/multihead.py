"""`torch.nn.MultiheadAttention`, which torchvision, open_clip and Hugging Face use in some of their models."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Linear, Step, Tap
from captum_astro.layouts.structure import AttentionBranch


def multihead_attention(
    attention: nn.Module, name: str, entering: Tap, after: tuple[Step, ...] = ()
) -> AttentionBranch:
    """Describe an instance of it; its values are made of the tokens that enter it.

    Args:
        attention: The module.
        name: Its dotted path.
        entering: Those tokens.
        after: The steps between its output and the residual stream.

    Raises:
        UnsupportedModelError: If it is of another class, or adds keys of its own.
    """
    module: Any = attention
    if not isinstance(attention, nn.MultiheadAttention) or module.bias_k is not None or module.add_zero_attn:
        raise UnsupportedModelError(
            f"{name} is a {type(attention).__name__}, not a torch.nn.MultiheadAttention without keys of its own. For "
            f"LoRA and other adapters, merge them first: merge_and_unload() in peft."
        )

    def value_weight() -> torch.Tensor:
        together = module.in_proj_weight
        weight: torch.Tensor = module.v_proj_weight if together is None else together.chunk(3)[2]
        return weight.reshape(module.num_heads, -1, weight.shape[1])

    out = module.out_proj
    return AttentionBranch(
        name, attention, (Linear(out.weight, out.bias), *after), value_weight, reads=entering, entering=entering
    )
