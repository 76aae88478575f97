"""Reference implementation of VTranM: written from its equations with loops, in float64, one image at a time.

It uses nothing from the package: attention runs unfused, its maps are stored with their gradients, every transformed
vector is formed for every head and token, and the n x n maps are multiplied.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import torch
from timm.layers import AttentionPoolLatent, AttentionPoolPrr, RmsNorm
from timm.layers.diff_attention import DiffAttention
from timm.models.vision_transformer import DiffParallelScalingBlock, ParallelScalingBlock, ParallelThingsBlock
from torch import nn
from torch.overrides import TorchFunctionMode

from captum_astro.models.astromorphic import AstromorphicAttention, AstromorphicBlock
from tests.families import build, images


class KeepSoftmax(TorchFunctionMode):
    """Stores every attention map that depends on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[torch.Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (torch.Tensor.softmax, torch.softmax) and out.ndim == 4 and out.requires_grad:
            self.maps.append(out)
        return out


@dataclass
class Part:
    """One branch: its attention and gradient (H, q, n), the vectors (H, n, d) of both kinds, 1/sigma (H, q)."""

    attention: torch.Tensor | None = None
    gradient: torch.Tensor | None = None
    vectors: dict[bool, torch.Tensor] = field(default_factory=dict)
    scale: torch.Tensor | None = None
    added: torch.Tensor | None = None


@dataclass
class Taken:
    """The record of one image's pass: for each residual add its stream (n, d) and parts, and the pooling."""

    stages: list[tuple[torch.Tensor, list[Part]]]
    pool: tuple[torch.Tensor, Part, int] | None


def take(model: Any, image: torch.Tensor, target: int, output: str, *arguments: torch.Tensor) -> Taken:
    """Run one image ``(1, 3, H, W)``, or list of patches with its arguments."""
    seen: dict[nn.Module, torch.Tensor] = {}
    outs: dict[nn.Module, torch.Tensor] = {}
    handles, flags = [], {}
    for module in model.modules():
        handles.append(
            module.register_forward_hook(
                lambda m, a, o: (
                    (
                        seen.__setitem__(m, a[0]) if a and torch.is_tensor(a[0]) else None,
                        outs.__setitem__(m, o),
                    )[2:]
                    or None
                )
            )
        )
        if hasattr(module, "fused_attn"):
            flags[module] = module.fused_attn
            module.fused_attn = False
    try:
        with KeepSoftmax() as kept:
            for module in model.modules():
                if isinstance(module, AstromorphicAttention):
                    module.forward = partial(effective, module, kept.maps)
            scores = model(image.clone().requires_grad_(True), *arguments)
        score = scores.softmax(-1)[0, target] if output == "probability" else scores[0, target]
        gradients = torch.autograd.grad(score, kept.maps)
    finally:
        for handle in handles:
            handle.remove()
        for module in model.modules():
            module.__dict__.pop("forward", None)
        for module, flag in flags.items():
            module.fused_attn = flag
    pairs = iter([(a[0].detach(), g[0]) for a, g in zip(kept.maps, gradients, strict=True)])
    with torch.no_grad():
        stages = []
        for block in model.blocks:
            stages += block_stages(block, pairs, seen, outs)
        pool = getattr(model, "attn_pool", None)
        pooled = None
        if pool is not None:
            first = 0 if type(model).__name__ == "Eva" or model.pool_include_prefix else model.num_prefix_tokens
            pooled = (
                outs[model.blocks[-1]][0][first:],
                pool_part(pool, pairs, seen, outs[model.blocks[-1]][0][first:]),
                first,
            )
    return Taken(stages, pooled)


@lru_cache(maxsize=2)
def of_family(name: str, target: int) -> tuple[torch.nn.Module, Taken, torch.Tensor]:
    """A family's tiny model, the record of one image's pass, and its read-out ``(n,)``."""
    model = build(name)
    taken = take(model, images(name, 1), target, "logit")
    readout = torch.zeros(len(taken.stages[0][0]), dtype=torch.float64)
    if name == "distilled":
        readout[:2] = 0.5
    elif getattr(model, "global_pool", "") == "avg":
        readout[0 if name == "average_with_prefix" else model.num_prefix_tokens :] = 1
        readout /= readout.sum()
    else:
        readout[0] = 1
    return model, taken, readout


def block_stages(block: Any, pairs: Any, seen: Any, outs: Any) -> list[tuple[torch.Tensor, list[Part]]]:
    """The residual adds of one block."""
    if isinstance(block, ParallelThingsBlock):
        stream = seen[block.attns[0]][0]
        attentions = [attention_part(p.attn, stream, seen[p.attn][0], pairs, seen, gamma(p, "ls")) for p in block.attns]
        later = seen[block.ffns[0]][0]
        return [(stream, attentions), (later, [Part(added=outs[p][0]) for p in block.ffns])]
    if isinstance(block, ParallelScalingBlock | DiffParallelScalingBlock):
        stream = seen[block][0]
        part = attention_part(block, stream, outs[block.in_norm][0], pairs, seen, gamma(block, "ls"))
        hidden, dim = outs[block.mlp_act][0], stream.shape[1]
        fused = block.out_proj is not None
        added = hidden @ block.out_proj.weight[:, dim:].T if fused else outs[block.mlp_out_proj][0]
        scale = gamma(block, "ls")
        return [(stream, [part, Part(added=added if scale is None else added * scale)])]
    if isinstance(block, AstromorphicBlock):
        stream = seen[block][0]
        if isinstance(block.attn, AstromorphicAttention):
            part = effective_part(block.attn, stream, pairs)
        else:
            part = attention_part(block.attn, stream, stream, pairs, seen, None)
        return [(stream, [part]), (seen[block.mlp][0], [Part(added=outs[block.mlp][0])])]
    pre = "Post" not in type(block).__name__
    stream, later = (seen[block.norm1][0], seen[block.norm2][0]) if pre else (seen[block.attn][0], seen[block.mlp][0])
    scale = gamma(block, "ls1", "gamma_1")
    part = attention_part(block.attn, stream, seen[block.attn][0], pairs, seen, scale, None if pre else block.norm1)
    return [(stream, [part]), (later, [Part(added=outs[block.drop_path2][0])])]


def phi(x: torch.Tensor) -> torch.Tensor:
    """``elu(x) + 1``."""
    return torch.nn.functional.elu(x) + 1


def effective(attention: Any, kept: list[torch.Tensor], x: torch.Tensor, mask: Any = None) -> torch.Tensor:
    """Astromorphic attention by its effective maps ``(1, maps, n, n)``, one per channel with a sigma; they are
    stored."""
    heads, units, n = attention.num_heads, attention.hidden_dim, x.shape[1]
    qkv = attention.qkv(x)[0]
    q, k, v = qkv[:, : heads * units], qkv[:, heads * units : 2 * heads * units], qkv[:, 2 * heads * units :]
    maps = []
    for h in range(heads):
        read, written = phi(q[:, h * units : (h + 1) * units]), phi(k[:, h * units : (h + 1) * units])
        value, keys = v[:, h * attention.head_dim : (h + 1) * attention.head_dim], written
        if attention.positions is not None:
            memory, place = attention.positions[h], torch.arange(n, dtype=x.dtype)
            kernel = torch.exp(-(place[:, None] - place[None]).abs() / attention.position_scale)
            keys = written + phi(memory.T @ (memory @ kernel @ memory.T))
        normaliser = (read @ written.sum(0) ** attention.alpha)[:, None]
        if attention.nonlinearity == "none":
            maps.append(read @ keys.T / (attention.scale * normaliser))
            continue
        inner, outer = (1 / attention.scale, 1) if attention.nonlinearity == "inside" else (1, 1 / attention.scale)
        stored = inner * (keys.T @ value)
        for d in range(attention.head_dim):
            slope = (stored[:, d].sigmoid() - 0.5) / stored[:, d] * inner
            maps.append((read * slope) @ keys.T * outer / normaliser)
    kept.append(torch.stack(maps)[None].detach().requires_grad_(True))
    width = attention.head_dim if attention.nonlinearity == "none" else 1
    values = v.detach().unflatten(1, (-1, width)).transpose(0, 1)
    mixed = (kept[-1][0] @ values).transpose(0, 1).reshape(1, n, -1)
    mixed = attention.proj(mixed) if isinstance(attention.proj, nn.Linear) else mixed
    # the layer's own output and gradient, plus the effect of the maps alone
    return type(attention).forward(attention, x) + mixed - mixed.detach()


def effective_part(attention: Any, stream: torch.Tensor, pairs: Any) -> Part:
    """The part of one astromorphic layer."""
    a, g = next(pairs)
    maps, n, width = len(a), len(stream), stream.shape[1] // len(a)
    weight = attention.qkv.weight[-stream.shape[1] :]
    bias = torch.zeros_like(weight[:, 0]) if attention.qkv.bias is None else attention.qkv.bias[-stream.shape[1] :]
    part = Part(a, g, scale=torch.ones(maps, n, dtype=a.dtype))
    for include in (True, False):
        vectors = torch.zeros(maps, n, stream.shape[1], dtype=a.dtype)
        for m in range(maps):
            rows = slice(m * width, (m + 1) * width)
            for j in range(n):
                full = torch.zeros(stream.shape[1], dtype=a.dtype)
                full[rows] = weight[rows] @ stream[j] + (bias[rows] if include else 0)
                vectors[m, j] = attention.proj.weight @ full if isinstance(attention.proj, nn.Linear) else full
        part.vectors[include] = vectors
    return part


def gamma(block: Any, module: str, parameter: str = "") -> torch.Tensor | None:
    """LayerScale's factor."""
    if parameter and getattr(block, parameter, None) is not None:
        return getattr(block, parameter)
    return getattr(getattr(block, module, None), "gamma", None)


def attention_part(
    attention: Any, stream: torch.Tensor, normed: torch.Tensor, pairs: Any, seen: Any,
    scale: torch.Tensor | None, post_norm: Any = None,
) -> Part:  # fmt: skip
    """One self-attention layer, token by token."""
    a, g = next(pairs)
    heads = attention.num_heads
    rows = torch.ones(heads, a.shape[1], dtype=a.dtype)
    before: Any = None
    if isinstance(attention, DiffAttention | DiffParallelScalingBlock):
        lam = attention._compute_lambda()
        a1, a2 = a[0::2], a[1::2]
        a, g = a1 - lam * a2, g[0::2]
        before = attention.sub_norm
        for h in range(heads):
            for i in range(a.shape[1]):
                rows[h, i] *= sigma_inverse(before, seen[before][0, h, i])
    wide = getattr(attention, "norm", None)
    for norm in (wide, post_norm):
        if norm is not None and not isinstance(norm, nn.Identity):
            for i in range(a.shape[1]):
                rows[:, i] *= sigma_inverse(norm, seen[norm][0, i])
    weight, bias = value_projection(attention, heads)
    out = out_projection(attention)
    part = Part(a, g, scale=rows)
    for include in (True, False):
        vectors = torch.zeros(heads, len(stream), stream.shape[1], dtype=a.dtype)
        for h in range(heads):
            for j in range(len(stream)):
                v = weight[h] @ normed[j] + bias[h] if include else weight[h] @ stream[j]
                if include and before is not None:
                    v = v * before.weight
                if before is not None:
                    v = v * (1 - attention.lambda_init)
                full = torch.zeros(heads * len(v), dtype=a.dtype)
                full[h * len(v) : (h + 1) * len(v)] = v
                if include:
                    full = linear_part(wide, full)
                added = out @ full
                if scale is not None:
                    added = added * scale
                vectors[h, j] = linear_part(post_norm, added) if include else added
        part.vectors[include] = vectors
    return part


def pool_part(pool: Any, pairs: Any, seen: Any, stream: torch.Tensor) -> Part:
    """A pooling head: the row of its queries that the model reads, averaged."""
    a, g = next(pairs)
    part = Part(a, g, scale=torch.ones(a.shape[:2], dtype=a.dtype))
    normed, heads, after = seen[pool][0], pool.num_heads, getattr(pool, "post_norm", None)
    if isinstance(pool, AttentionPoolPrr):
        normed = pool.pre_norm(normed)
    elif pool.pos_embed is not None:
        normed = normed + pool.pos_embed
    if after is not None and not isinstance(after, nn.Identity):
        part.scale *= torch.stack([sigma_inverse(after, x) for x in seen[after][0]])
    for include in (True, False):
        vectors = []
        for h in range(heads):
            if isinstance(pool, AttentionPoolPrr):
                source, size = (normed if include else stream), stream.shape[1] // heads
                vector = torch.zeros_like(source)
                vector[:, h * size : (h + 1) * size] = source[:, h * size : (h + 1) * size]
            else:
                assert isinstance(pool, AttentionPoolLatent)
                size = stream.shape[1] // heads
                rows = slice(stream.shape[1] + h * size, stream.shape[1] + (h + 1) * size)
                value = stream @ pool.kv.weight[rows].T
                if include:
                    value = normed @ pool.kv.weight[rows].T + pool.kv.bias[rows]
                vector = value @ pool.proj.weight[:, h * size : (h + 1) * size].T
            vectors.append(torch.stack([linear_part(after, x) for x in vector]) if include else vector)
        part.vectors[include] = torch.stack(vectors)
    return part


def sigma_inverse(norm: Any, x: torch.Tensor) -> torch.Tensor:
    """The divisor of a norm for one vector."""
    power = (x**2).mean() if isinstance(norm, RmsNorm) else ((x - x.mean()) ** 2).mean()
    return 1 / (power + norm.eps).sqrt()


def linear_part(norm: Any, x: torch.Tensor) -> torch.Tensor:
    """A norm of one vector without its division and bias."""
    if norm is None or isinstance(norm, nn.Identity):
        return x
    return (x if isinstance(norm, RmsNorm) else x - x.mean()) * norm.weight


def value_projection(attention: Any, heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (H, d_v, d) and biases (H, d_v)."""
    if isinstance(attention, ParallelScalingBlock | DiffParallelScalingBlock):
        dim = attention.in_split[-1]
        weight, bias = attention.in_proj.weight[-dim:], attention.in_proj.bias[-dim:]
    elif attention.qkv is not None:
        third = attention.qkv.weight.shape[0] // 3
        weight, bias = attention.qkv.weight[2 * third :], attention.qkv.bias
        bias = bias[2 * third :] if bias is not None else getattr(attention, "v_bias", None)
    else:
        weight, bias = attention.v_proj.weight, attention.v_proj.bias
        copies = heads * (weight.shape[0] // getattr(attention, "num_kv_heads", heads)) // weight.shape[0]
        size = weight.shape[0] // (heads // copies)
        weight = torch.cat([weight[k * size : (k + 1) * size] for k in range(heads // copies) for _ in range(copies)])
        bias = torch.cat([bias[k * size : (k + 1) * size] for k in range(heads // copies) for _ in range(copies)])
    if bias is None:
        bias = torch.zeros_like(weight[:, 0])
    return weight.reshape(heads, -1, weight.shape[1]), bias.reshape(heads, -1)


def out_projection(attention: Any) -> torch.Tensor:
    """The weight (d, H d_v) after the heads."""
    if isinstance(attention, ParallelScalingBlock | DiffParallelScalingBlock):
        if attention.out_proj is None:
            return attention.attn_out_proj.weight
        return attention.out_proj.weight[:, : attention.in_split[-1]]
    return attention.proj.weight


def measure(stream: torch.Tensor, vectors: torch.Tensor, components: tuple[str, ...]) -> torch.Tensor:
    """``|E~_j| / |E_j| * NECC(j)`` for one head: ``(n,)``."""
    weights = torch.ones(len(stream), dtype=stream.dtype)
    cosines = torch.zeros(len(stream), dtype=stream.dtype)
    for j in range(len(stream)):
        if "length" in components:
            weights[j] *= vectors[j].norm() / stream[j].norm()
        cosines[j] = vectors[j] @ stream[j] / (vectors[j].norm() * stream[j].norm())
    if "direction" in components:
        weights = weights * cosines.exp() / cosines.exp().sum()
    return weights


def attention_map(stream: torch.Tensor, part: Part, components: tuple[str, ...], include_norm: bool) -> torch.Tensor:
    """``E_h[(dp/dA)^+ * A W]`` entry by entry: ``(q, n)``."""
    heads, queries, keys = part.attention.shape
    gradient, attention, scale = part.gradient.tolist(), part.attention.tolist(), part.scale.tolist()
    update = [[0.0] * keys for _ in range(queries)]
    for h in range(heads):
        weights = measure(stream, part.vectors[include_norm][h], components).tolist()
        for i in range(queries):
            for j in range(keys):
                entry = max(gradient[h][i][j], 0) * attention[h][i][j] * weights[j] / heads
                update[i][j] += entry * (scale[h][i] if include_norm else 1)
    return torch.tensor(update, dtype=stream.dtype)


@torch.no_grad()
def vtranm(
    model: Any, taken: Taken, readout: torch.Tensor, *, aggregation: bool, components: tuple[str, ...],
    include_norm: bool, gain: float,
) -> tuple[torch.Tensor, torch.Tensor | None]:  # fmt: skip
    """The tokens' relevance ``(n,)``, and the whole map ``C`` where there is one."""
    components = components if aggregation else ()
    row = readout
    if taken.pool is not None:
        stream, part, first = taken.pool
        pool_map = attention_map(stream, part, components, include_norm)
        queries = pool_map[:1] if model.attn_pool.pool == "token" else pool_map
        row = torch.cat([torch.zeros(first, dtype=stream.dtype), queries.mean(0)])
    if not aggregation:
        if taken.pool is not None:
            return row, None
        stream, parts = next(s for s in reversed(taken.stages) if s[1][0].attention is not None)
        total = sum(attention_map(stream, p, (), include_norm) for p in parts if p.attention is not None)
        return row @ total, None
    n = len(taken.stages[0][0])
    contribution = torch.eye(n, dtype=row.dtype)
    if "length" in components:
        contribution = torch.diag(torch.stack([token.norm() for token in taken.stages[0][0]]))
    for stream, parts in taken.stages:
        update = torch.eye(n, dtype=row.dtype)
        for part in parts:
            if part.attention is not None:
                update = update + gain * attention_map(stream, part, components, include_norm)
            elif components:
                update = update + torch.diag(measure(stream, part.added, components))
        contribution = update @ contribution
    return row @ contribution, contribution


def mean_map(part: Part, weight: Any = None) -> torch.Tensor:
    """``E_h[f(A, dA)]`` entry by entry; ``E_h[A]`` by default."""
    heads, queries, keys = part.attention.shape
    attention, gradient = part.attention.tolist(), part.gradient.tolist()
    weight = weight or (lambda a, g: a)
    return torch.tensor(
        [
            [sum(weight(attention[h][i][j], gradient[h][i][j]) for h in range(heads)) / heads for j in range(keys)]
            for i in range(queries)
        ],
        dtype=part.attention.dtype,
    )


@torch.no_grad()
def chain(model: Any, taken: Taken, readout: torch.Tensor, weight: Any, normalise: bool = False) -> torch.Tensor:
    """The read-out row of ``U_L ... U_1`` with ``U = I + E_h[f(A, dA)]``, its rows normalised to 1 if requested."""
    row = readout
    if taken.pool is not None:
        _, part, first = taken.pool
        pool_map = mean_map(part, weight)
        queries = pool_map[:1] if model.attn_pool.pool == "token" else pool_map
        row = torch.cat([torch.zeros(first, dtype=row.dtype), queries.mean(0)])
    product = torch.eye(len(row), dtype=row.dtype)
    for _, parts in taken.stages:
        attended = [part for part in parts if part.attention is not None]
        if attended:
            update = torch.eye(len(row), dtype=row.dtype) + sum(mean_map(part, weight) for part in attended)
            product = (update / update.sum(1, keepdim=True) if normalise else update) @ product
    return row @ product


@torch.no_grad()
def last_attention(model: Any, taken: Taken, readout: torch.Tensor) -> tuple[list[Part], torch.Tensor, int]:
    """The parts of the last attention layer, the weights of its queries, and its first key."""
    if taken.pool is not None:
        _, part, first = taken.pool
        rows = torch.zeros(part.attention.shape[1], dtype=readout.dtype)
        rows[: 1 if model.attn_pool.pool == "token" else None] = 1
        return [part], rows / rows.sum(), first
    parts = next(parts for _, parts in reversed(taken.stages) if any(p.attention is not None for p in parts))
    return [part for part in parts if part.attention is not None], readout, 0
