"""Each block's own class score, and its gradient at the block's attention maps: by plain hooks, one image at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from timm.layers.diff_attention import DiffAttention
from timm.models.vision_transformer import DiffParallelScalingBlock

from captum_astro.models.astromorphic import AstromorphicAttention
from tests import twins
from tests.attr.reference import TARGET
from tests.families import build, images


@dataclass
class Read:
    """A map that a score depends on, and its gradient, ``(H, q, n)``."""

    attention: torch.Tensor
    gradient: torch.Tensor


def of_family(name: str, read: Any) -> list[list[Read]]:
    """For each block, the maps of the score of its tokens: its own, or that of the pooling head which reads them.

    Args:
        name: The family.
        read: From the model and a block's tokens ``(1, n, d)`` to the logits.
    """
    model: Any = build(name)
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    outs: list[tuple[torch.Tensor, int]] = []
    with twins.KeepSoftmax() as kept:
        for module in model.modules():
            if isinstance(module, AstromorphicAttention):
                module.forward = partial(twins.effective, module, kept.maps)
        for block in model.blocks:
            block.register_forward_hook(lambda m, a, o: outs.append((o, len(kept.maps))))
        model(images(name, 1).requires_grad_(True))
        found, start = [], 0
        for block, (tokens, end) in zip(model.blocks, outs, strict=True):
            maps, before = kept.maps[start:end], len(kept.maps)
            score, start = read(model, tokens)[0, TARGET], end
            if getattr(model, "attn_pool", None) is not None:
                maps = kept.maps[before:]
            gradients = torch.autograd.grad(score, maps, retain_graph=True)
            pairs = [(a[0].detach(), g[0]) for a, g in zip(maps, gradients, strict=True)]
            differs = isinstance(getattr(block, "attn", block), DiffAttention | DiffParallelScalingBlock)
            found.append([Read(a, g[0::2] if differs else g) for a, g in pairs])
    return found


def head(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """What the model reads of final tokens."""
    return model.forward_head(model.norm(tokens))


def head_of_normalised_mean(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """What it reads of the mean of the normalised tokens, in the place of each."""
    normed = model.norm(tokens)
    return model.forward_head(normed.mean(1, keepdim=True).expand_as(normed))


def head_of_mean(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """The same of their mean, in the place of each; a pooling head reads the tokens."""
    if getattr(model, "attn_pool", None) is not None:
        return head(model, tokens)
    return head(model, tokens.mean(1, keepdim=True).expand_as(tokens))
