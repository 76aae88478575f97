"""Time VTranM relative to forward + input-backward and a direct implementation, alternated in one run.

python -m tests.benchmarks.bench_vtranm [--model vit_base_patch16_224] [--batch 4] [--rounds 7] [--device cpu] [--alone]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import timm
import torch
from torch import nn

from captum_astro import VTranM


def floor(model: nn.Module, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The model's own forward pass and the backward pass to the input, with frozen parameters."""
    x = x.clone().requires_grad_(True)
    score = model(x).softmax(-1).gather(1, target[:, None]).sum()
    return torch.autograd.grad(score, x)[0]


def direct(model: nn.Module, x: torch.Tensor, target: torch.Tensor, published: bool) -> torch.Tensor:
    """A direct implementation: unfused attention, stored maps and gradients, n x n products. Plain ViT only.

    ``published`` runs it as the published code of this family of methods does: ``score.backward()`` on a model whose
    parameters require gradients. Otherwise they are frozen, as for VTranM.
    """
    model.requires_grad_(published)
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
        model.requires_grad_(False)
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


def main() -> None:
    """Print the times and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--alone", action="store_true", help="skip the direct implementation, which needs a plain ViT")
    args = parser.parse_args()
    model = timm.create_model(args.model).eval().requires_grad_(False).to(args.device)
    x = torch.randn(args.batch, *model.default_cfg["input_size"]).to(args.device)
    target = torch.arange(args.batch, device=args.device)
    method = VTranM(model)
    runs: dict[str, Callable[[], torch.Tensor]] = {
        "forward + input-backward": lambda: floor(model, x, target),
        "VTranM": lambda: method.attribute(x, target=target),
    }
    if type(model).__name__ == "VisionTransformer" and not args.alone:
        runs |= {
            "direct form, frozen": lambda: direct(model, x, target, published=False),
            "direct form, published style": lambda: direct(model, x, target, published=True),
        }
        streamed = method.attribute(x, target=target, attribute_to="tokens")
        error = (streamed - runs["direct form, published style"]()).abs().max() / streamed.abs().max()
        print(f"largest difference from the direct form: {error:.1e} of the largest value")
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, run in runs.items():
            if args.device != "cpu":
                torch.cuda.synchronize()
            start = time.perf_counter()
            run()
            if args.device != "cpu":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    base = times["forward + input-backward"]
    for name, values in times.items():
        ratio = statistics.median(value / other for value, other in zip(values, base, strict=True))
        print(f"{name:28s} {statistics.median(values):8.3f} s   {ratio:6.3f} of forward + input-backward")


if __name__ == "__main__":
    main()
