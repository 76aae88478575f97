"""What methods are measured against: a model's own passes, and VTranM written directly from its definition."""

from __future__ import annotations

import torch
from torch import nn


def floor(model: nn.Module, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The model's own forward pass and the backward pass to the input, with frozen parameters."""
    x = x.clone().requires_grad_(True)
    score = model(x).softmax(-1).gather(1, target[:, None]).sum()
    return torch.autograd.grad(score, x)[0]


def direct(model: nn.Module, x: torch.Tensor, target: torch.Tensor, published: bool) -> torch.Tensor:
    """A direct implementation: unfused attention, stored maps and gradients, n x n products. Plain ViT only.

    ``published`` runs it as the published code of this family of methods does: ``score.backward()`` on a model whose
    parameters require gradients. Otherwise it takes the gradients of the maps alone.
    """
    kept: list[tuple[torch.Tensor, ...]] = []
    hooks = []
    for block in model.blocks:
        block.attn.fused_attn = False
        state: dict[str, torch.Tensor] = {}
        hooks += [
            block.register_forward_pre_hook(lambda m, a, s=state: s.update(E=a[0])),
            block.attn.qkv.register_forward_hook(lambda m, a, o, s=state: s.update(qkv=o)),
            block.attn.attn_drop.register_forward_pre_hook(lambda m, a, s=state: s.update(A=a[0])),
            block.norm2.register_forward_pre_hook(lambda m, a, s=state: s.update(E2=a[0])),
            block.mlp.register_forward_hook(lambda m, a, o, s=state: s.update(F=o)),
        ]
        kept.append(state)
    try:
        image = x.clone().requires_grad_(True)
        score = model(image).softmax(-1).gather(1, target[:, None]).sum()
        maps = [state["A"] for state in kept]
        if published:
            # parameters not frozen, and one backward pass through everything
            for attention in maps:
                attention.retain_grad()
            score.backward()
            model.zero_grad()
            gradients = [attention.grad for attention in maps]
        else:
            gradients = list(torch.autograd.grad(score, maps))
    finally:
        for hook in hooks:
            hook.remove()
        for block in model.blocks:
            block.attn.fused_attn = True
    with torch.no_grad():
        start = kept[0]["E"].norm(dim=-1)
        batch, n, d = kept[0]["E"].shape
        contribution = torch.diag_embed(start)
        for block, state, gradient in zip(model.blocks, kept, gradients, strict=True):
            heads = block.attn.num_heads
            v = state["qkv"].reshape(batch, n, 3, heads, -1).permute(2, 0, 3, 1, 4)[2]
            out = torch.einsum("bhnk,hkd->bhnd", v, block.attn.proj.weight.T.reshape(heads, -1, d))
            ratio = out.norm(dim=-1) / state["E"].norm(dim=-1)[:, None]
            necc = torch.cosine_similarity(out, state["E"][:, None], dim=-1).softmax(-1)
            update = (gradient.clamp(min=0) * state["A"] * (ratio * necc)[:, :, None]).mean(1)
            contribution = contribution + update @ contribution
            ratio = state["F"].norm(dim=-1) / state["E2"].norm(dim=-1)
            necc = torch.cosine_similarity(state["F"], state["E2"], dim=-1).softmax(-1)
            contribution = contribution + (ratio * necc)[..., None] * contribution
    return contribution[:, 0]
