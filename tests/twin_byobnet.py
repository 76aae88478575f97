"""The layers of ByobNet's models as explicit matrices, from the model's own modules: see `twin_layers`."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from timm.layers import AttentionPool2d, RotAttentionPool2d
from timm.layers.halo_attn import HaloAttn
from timm.models.byobnet import ByobNet, SelfAttnBlock
from timm.models.mobilevit import MobileVitBlock
from torch import nn

from tests.twin_hybrid import fused, merged, shared
from tests.twin_layers import (
    BOTH,
    Layer,
    Run,
    T,
    Taken,
    added,
    dense,
    describes,
    flat,
    head_vectors,
    mean_of,
    plain_attention,
    weighed,
)
from tests.twin_windows import measure


@describes(ByobNet)
def byobnet(model: Any, run: Run) -> Taken:
    """Blocks with attention among convolutional ones; perhaps a head that pools by attention."""
    layers: list[Layer] = []
    first = None
    for block in (block for stage in model.stages for block in stage):
        if isinstance(block, MobileVitBlock):
            if first is not None:
                layers.append(shared(run.seen[block], run.outs[block.conv_1x1]))
            first = run.outs[block.conv_1x1] if first is None else first
            layers += mobilevit(block, run)
        elif isinstance(block, SelfAttnBlock):
            first = run.seen[block] if first is None else first
            layers.append(self_attention(block, run))
        elif first is not None:
            strided = [m for m in block.modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)]
            layers.append(shared(run.seen[block], run.outs[block], strided[0] if strided else None))
    last = run.outs[model.final_conv]
    lengths = flat(last if first is None else first).norm(dim=-1)
    if isinstance(model.head, AttentionPool2d | RotAttentionPool2d):
        return Taken([*layers, pooled(model.head, run, flat(last))], lengths, mean_of(1))
    return Taken(layers, lengths, mean_of(last[0, 0].numel()))


def mobilevit(block: Any, run: Run) -> list[Layer]:
    """Attention among the tokens at the same place of their patches."""
    layers, (rows, columns) = [], run.outs[block].shape[2:]
    high, wide = block.patch_size
    where = [
        (y % high * wide + x % wide, y // high * (columns // wide) + x // wide)
        for y, x in itertools.product(range(rows), range(columns))
    ]

    def tokens(x: T) -> T:
        return torch.stack([x[place, patch] for place, patch in where])

    for part in block.transformer:
        stream, read = tokens(run.seen[part]), tokens(run.outs[part.norm1])
        layers.append(plain_attention(part.attn, stream, read, dense(next(run.maps), where), where))
        layers.append(added(tokens(run.seen[part.norm2]), tokens(run.outs[part.mlp])))
    return layers


def self_attention(block: Any, run: Run) -> Layer:
    """Of blocks of queries, each with the keys that it sees; perhaps four queries are averaged."""
    attn, old = block.self_attn, run.seen[block]
    (rows, columns), (heads, each, width) = old.shape[2:], (attn.num_heads, attn.dim_head_v, attn.dim_head_qk)
    attention, gradient = next(run.maps)
    identity = torch.eye(rows * columns, dtype=torch.float64)
    kept, stream = {True: identity, False: identity}, flat(old)
    if not isinstance(block.shortcut, nn.Identity):
        conv, new = fused(block.shortcut.conv, block.shortcut.bn), run.outs[block.shortcut]
        kept, stream = merged(block.shortcut.conv, block.shortcut.bn, old, new), stream @ conv.weight.flatten(1).T
    if isinstance(attn, HaloAttn):
        chosen = [h * (width + each) + width + i for h in range(heads) for i in range(each)]
        values, groups = flat(run.outs[attn.kv])[:, chosen], halo(attn, rows, columns)
    else:
        values, every = flat(run.outs[attn.qkv])[:, 2 * heads * width :], list(range(rows * columns))
        groups, attention, gradient = [(every, every)], attention[:, None], gradient[:, None]
    norm = block.post_attn
    project = fused(block.conv3_1x1.conv, block.conv3_1x1.bn).weight.flatten(1)
    scale = norm.weight / (norm.running_var + norm.eps) ** 0.5
    project = project * scale
    factors = torch.ones(4 * len(stream), heads * each, dtype=torch.float64)
    if isinstance(attn.pool, nn.Identity):
        given = flat(run.seen[norm]) * scale + norm.bias - norm.running_mean * scale  # the activation works in place
        factors = norm.act(given.clone()) / given
    queries = sum(len(group) for group, _ in groups)
    found = {name: torch.zeros(queries, rows * columns, dtype=torch.float64) for name in ("vtranm", "rollout")}
    for number, (group, keys) in enumerate(groups):
        present = [key for key in keys if key >= 0]
        for h in range(heads):
            part = slice(h * each, (h + 1) * each)
            for (i, query), (j, key) in itertools.product(enumerate(group), enumerate(keys)):
                if j == 0:
                    vectors = (values[present][:, part] * factors[query, part]) @ project[:, part].T
                    lengths = dict(zip(present, weighed(stream[present], vectors), strict=True))
                if key >= 0:
                    a, g = attention[h, number, i, j], gradient[h, number, i, j].clamp(min=0)
                    found["vtranm"][query, key] += g * a * lengths[key] / heads
                    found["rollout"][query, key] += a / heads
    if not isinstance(attn.pool, nn.Identity):
        four = found["vtranm"].reshape(rows // 2, 2, columns // 2, 2, -1)
        found["vtranm"] = four.sum((1, 3)).flatten(0, 1)
        four = found["rollout"].reshape(rows // 2, 2, columns // 2, 2, -1)
        found["rollout"] = four.mean((1, 3)).flatten(0, 1)
    return Layer(kept, found)


def halo(attn: Any, rows: int, columns: int) -> list[tuple[list[int], list[int]]]:
    """The queries of each block, and its tokens and those around it; -1 outside."""
    side, near, size = attn.block_size, attn.halo_size, attn.block_size_ds
    across = columns // side * size
    groups = []
    for down, right in itertools.product(range(rows // side), range(columns // side)):
        queries = [
            (down * size + i) * across + right * size + j for i, j in itertools.product(range(size), range(size))
        ]
        keys = []
        for i, j in itertools.product(range(-near, side + near), range(-near, side + near)):
            row, column = down * side + i, right * side + j
            keys.append(row * columns + column if 0 <= row < rows and 0 <= column < columns else -1)
        groups.append((queries, keys))
    return groups


def pooled(head: Any, run: Run, stream: T) -> Layer:
    """The mean of all tokens attends to itself and to each of them: one new token."""
    number = len(stream)
    attention, gradient = run.map()
    keys = torch.cat([torch.ones(1, number, dtype=torch.float64) / number, torch.eye(number)])
    values, heads = run.outs[head.v][0], head.num_heads
    identity = torch.eye(head.embed_dim, dtype=torch.float64)
    vectors = head_vectors(values, identity, None, identity, heads)
    whole = torch.zeros(1, number + 1, dtype=torch.float64)
    for h in range(heads):
        weights = measure(keys @ stream, vectors[h], BOTH, [0] * (number + 1))
        whole += gradient[h, :1].clamp(min=0) * attention[h, :1] * weights / heads
    return Layer({True: whole @ keys, False: attention[:, :1].mean(0) @ keys})  # without an identity
