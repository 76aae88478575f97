"""More families as explicit matrices: see `twin_layers`."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from timm.models.hieradet_sam2 import HieraDet
from timm.models.levit import Levit, LevitDownsample
from timm.models.mvitv2 import MultiScaleVit
from timm.models.tnt import TNT
from timm.models.volo import VOLO, Outlooker
from timm.models.xcit import Xcit
from torch import nn

from tests.twin_layers import (
    BOTH,
    Layer,
    Run,
    T,
    Taken,
    added,
    attended,
    convolved,
    describes,
    gated_map,
    head_vectors,
    maximum,
    mean_of,
    plain_attention,
    tokens_of,
)
from tests.twin_windows import measure, places


def ratios(stream: T, output: T) -> T:
    """The diagonal matrix of a feed-forward layer that sees these tokens only."""
    return torch.diag(measure(stream, output, BOTH, [0] * len(stream)))


def normed(norm: nn.LayerNorm, x: T) -> T:
    """A layer norm, without a call of the module, which would be noted."""
    return nn.functional.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, norm.eps)


def first_token(tokens: int) -> T:
    """A read-out of the first token."""
    weights = torch.zeros(tokens, dtype=torch.float64)
    weights[0] = 1
    return weights


def of_first_query(maps: tuple[T, T], tokens: int) -> tuple[T, T]:
    """Maps ``(H, 1, n)`` of the first token as those of all tokens, of which the others attend to nothing."""
    attention, gradient = (torch.cat([x, x.new_zeros(len(x), tokens - 1, tokens)], 1) for x in maps)
    return attention, gradient


@describes(Xcit)
def xcit(model: Any, run: Run) -> Taken:
    """Attention over channels is computed for every token by itself; in the class blocks the patches change too."""
    layers = []
    for block in model.blocks:
        next(run.maps)
        layers.append(added(run.seen[block.norm1][0], run.outs[block.attn][0] * block.gamma1))
        layers.append(added(run.seen[block.norm3][0], run.outs[block.local_mp][0] * block.gamma3))
        layers.append(added(run.seen[block.norm2][0], run.outs[block.mlp][0] * block.gamma2))
    n = len(run.outs[block][0])
    joined = torch.cat([torch.zeros(1, n), torch.eye(n)]).double()
    layers.append(Layer({True: joined, False: joined}))
    for block in model.cls_attn_blocks:
        attn, stream, read = block.attn, run.seen[block][0], run.outs[block.norm1][0]
        project = attn.proj.weight * block.gamma1[:, None]
        vectors = head_vectors(read, attn.v.weight, attn.v.bias, project, attn.num_heads)
        layers.append(attended(stream, of_first_query(run.map(), n + 1), vectors))
        extra = read[1:] * block.gamma1
        layers[-1].feed_forward = torch.block_diag(torch.zeros(1, 1), ratios(stream[1:], extra))
        patches = stream[1:] + extra
        patches = normed(block.norm2, patches) if block.tokens_norm else patches
        token = ratios(run.outs[block.norm2][0, :1], run.outs[block.mlp][0] * block.gamma2)
        identity = torch.eye(n + 1, dtype=torch.float64)
        layers.append(Layer({True: identity, False: identity}, {}, torch.block_diag(token, ratios(patches, patches))))
    return Taken(layers, run.seen[model.blocks[0]][0].norm(dim=-1), first_token(n + 1))


def shares_of(made: list[dict[int, T]], tokens: int) -> dict[bool, T]:
    """New tokens, each a sum of what some old ones contribute: shares by length, and equal ones."""
    shares = {way: torch.zeros(len(made), tokens, dtype=torch.float64) for way in (True, False)}
    for row, parts in enumerate(made):
        lengths = {place: float(part.norm()) for place, part in parts.items()}
        for place, length in lengths.items():
            shares[True][row, place] = length / sum(lengths.values())
            shares[False][row, place] = 1 / len(lengths)
    return shares


def pooled_heads(conv: nn.Conv2d, norm: nn.LayerNorm, old: T, grid: tuple[int, int], new: T) -> list[dict[int, T]]:
    """What old tokens ``(n, heads * d)`` contribute to each pooled one ``(heads, m, d)``; the first may be no patch."""
    heads, _, width = new.shape
    prefix, step = len(old) - grid[0] * grid[1], conv.stride[0]
    summed: list[dict[int, T]] = [{i: old[i].reshape(heads, width)} for i in range(prefix)]
    for y, x in itertools.product(*(range(-(-side // step)) for side in grid)):
        parts: dict[int, T] = {}
        for i, j in itertools.product(range(3), range(3)):
            row, column = y * step + i - 1, x * step + j - 1
            if 0 <= row < grid[0] and 0 <= column < grid[1]:
                place = prefix + row * grid[1] + column
                parts[place] = old[place].reshape(heads, width) * conv.weight[:, 0, i, j]
        summed.append(parts)
    for number, parts in enumerate(summed):
        whole = sum(parts.values())
        deviation = (whole.var(1, unbiased=False) + norm.eps).sqrt()[:, None]
        for place, part in parts.items():
            parts[place] = ((part - part.mean(1, keepdim=True)) / deviation * norm.weight).flatten()
        rebuilt = sum(parts.values()).reshape(heads, width) + norm.bias
        assert (rebuilt - new[:, number]).abs().max() < 1e-12 * rebuilt.abs().max()
    assert len(summed) == new.shape[1]
    return summed


@describes(MultiScaleVit)
def mvitv2(model: Any, run: Run) -> Taken:
    """Values are pooled after their projection; pooled queries are added to what they attend to."""
    layers, grid = [], tuple(run.outs[model.patch_embed][1])
    for block in (block for stage in model.stages for block in stage.blocks):
        attn, stream = block.attn, run.seen[block][0]
        queries, _, values = run.outs[attn.qkv][0].chunk(3, 1)
        stream = stream if block.shortcut_proj_attn is None else run.outs[block.shortcut_proj_attn][0]
        kept = {way: torch.eye(len(stream), dtype=torch.float64) for way in (True, False)}
        merged, prefix = stream, len(stream) - grid[0] * grid[1]
        if block.shortcut_pool_attn is not None:
            pool, patches = nn.MaxPool2d(3, 2, 1), stream[prefix:].reshape(*grid, -1)
            new = pool(patches.permute(2, 0, 1)).permute(1, 2, 0)
            merged = torch.cat([stream[:prefix], new.flatten(0, 1)])
            kept = {way: torch.block_diag(torch.eye(prefix), m) for way, m in maximum(pool, patches, new).items()}
        project, made = attn.proj.weight, run.outs[attn.norm_v][0]
        width = made.shape[2]
        vectors = torch.stack([v @ project[:, h * width : (h + 1) * width].T for h, v in enumerate(made)])
        keys = shares_of(pooled_heads(attn.pool_v, attn.norm_v, values, grid, made), len(stream))
        layers.append(attended(stream, run.map(), vectors, keys))
        layers[-1].kept = kept
        made = run.outs[attn.norm_q][0]
        parts = pooled_heads(attn.pool_q, attn.norm_q, queries, grid, made)
        ways = shares_of([{place: project @ part for place, part in one.items()} for one in parts], len(stream))
        layers[-1].feed_forward = ratios(merged, made.transpose(0, 1).flatten(1) @ project.T) @ ways[True]
        grid = tuple(run.outs[block][1])
        stream = run.seen[block.norm2][0]
        stream = stream if block.shortcut_proj_mlp is None else run.outs[block.shortcut_proj_mlp][0]
        layers.append(added(stream, run.outs[block.mlp][0]))
    readout = torch.zeros(len(stream), dtype=torch.float64)
    readout[slice(1) if prefix else slice(None)] = 1
    return Taken(layers, run.seen[model.stages[0].blocks[0]][0].norm(dim=-1), readout / readout.sum())


def normalised_rows(layer: Any) -> tuple[T, T]:
    """Weight and bias of a linear layer or a convolution of single tokens, and the batch norm after it."""
    norm, weight = layer.bn, layer.linear.weight.flatten(1)
    scale = norm.weight / (norm.running_var + norm.eps) ** 0.5
    return weight * scale[:, None], norm.bias - norm.running_mean * scale


@describes(Levit)
def levit(model: Any, run: Run) -> Taken:
    """The activation multiplies what each query gets; shares of what replaces the stream sum to 1."""
    layers: list[Layer] = []

    def tokens(x: T) -> T:
        return tokens_of(x, True) if model.use_conv else x[0]

    blocks = [(stage.downsample, *stage.blocks) for stage in model.stages]
    for block in (block for part in blocks for block in part if not isinstance(block, nn.Identity)):
        down = isinstance(block, LevitDownsample)
        attn = block.attn_downsample if down else block.attn
        stream, before, entered = tokens(run.seen[attn]), attn.key_dim * (1 if down else 2), run.seen[attn.proj.act]
        factors = torch.nn.functional.hardtanh(tokens(entered) + 3, 0, 6) / 6
        weight, bias = normalised_rows(attn.kv if down else attn.qkv)
        each = before + attn.val_dim
        rows = [h * each + before + i for h in range(attn.num_heads) for i in range(attn.val_dim)]
        values = (stream @ weight[rows].T + bias[rows]).unflatten(1, (attn.num_heads, -1)).transpose(0, 1)
        maps = run.map()
        attention = gated_map(stream, maps, values, normalised_rows(attn.proj.ln)[0], factors)
        if down:
            layers.append(Layer({True: attention / attention.sum(1, keepdim=True), False: maps[0].mean(0)}))
        else:
            identity = torch.eye(len(stream), dtype=torch.float64)
            matrices = {"vtranm": attention, "rollout": maps[0].mean(0)}
            layers.append(Layer({True: identity, False: identity}, matrices))
        layers.append(added(tokens(run.seen[block.mlp]), tokens(run.outs[block.mlp])))
    lengths = tokens(run.seen[model.stages[0].blocks[0].attn]).norm(dim=-1)
    return Taken(layers, lengths, mean_of(len(tokens(run.outs[block]))))


def outlook(attn: Any, stream: T, read: T, maps: tuple[T, T], grid: tuple[int, int]) -> Layer:
    """Attention ``(H, windows, 9, 9)`` in windows of 3 x 3 around every other token of every other row."""
    vectors, heads, n = (
        head_vectors(read, attn.v.weight, attn.v.bias, attn.proj.weight, attn.num_heads),
        len(maps[0]),
        len(read),
    )
    matrices = {name: torch.zeros(n, n, dtype=read.dtype) for name in ("vtranm", "rollout")}
    corners = itertools.product(range(-1, grid[0] - 1, 2), range(-1, grid[1] - 1, 2))
    for window, (top, left) in enumerate(corners):
        inside = {
            slot: (top + slot // 3) * grid[1] + left + slot % 3
            for slot in range(9)
            if 0 <= top + slot // 3 < grid[0] and 0 <= left + slot % 3 < grid[1]
        }
        places = list(inside.values())
        for h in range(heads):
            weights = measure(stream[places], vectors[h][places], BOTH, [0] * len(places)).tolist()
            attention, gradient = (x[h, window].tolist() for x in maps)
            for (i, row), ((j, column), weight) in itertools.product(
                inside.items(), zip(inside.items(), weights, strict=True)
            ):
                matrices["vtranm"][row, column] += max(gradient[i][j], 0) * attention[i][j] * weight / heads
                matrices["rollout"][row, column] += attention[i][j] / heads
    assert window + 1 == maps[0].shape[1]
    return Layer(dict.fromkeys((True, False), torch.eye(n, dtype=torch.float64)), matrices)


@describes(VOLO)
def volo(model: Any, run: Run) -> Taken:
    """The class token is read, and half as much the patch with the largest value of the class."""
    layers: list[Layer] = []
    for part in model.network:
        grid = tuple(run.outs[part].shape[1:3])
        if not isinstance(part, nn.Sequential):
            layers.append(Layer(convolved(part.proj, None, run.seen[part][0], run.outs[part][0])))
            continue
        for block in part:
            stream, read = (tokens_of(x, False) for x in (run.seen[block], run.outs[block.norm1]))
            if isinstance(block, Outlooker):
                layers.append(outlook(block.attn, stream, read, run.map(), grid))
            else:
                layers.append(plain_attention(block.attn, stream, read, run.map()))
            layers.append(added(*(tokens_of(x, False) for x in (run.seen[block.norm2], run.outs[block.mlp]))))
    n = len(stream)
    joined = torch.cat([torch.zeros(1, n), torch.eye(n)]).double()
    layers.append(Layer({True: joined, False: joined}))
    for block in model.post_network:
        attn, stream, read = block.attn, run.seen[block][0], run.outs[block.norm1][0]
        weight, bias = (None if x is None else x.chunk(2)[1] for x in (attn.kv.weight, attn.kv.bias))
        vectors = head_vectors(read, weight, bias, attn.proj.weight, attn.num_heads)
        layers.append(attended(stream, of_first_query(run.map(), n + 1), vectors))
        token, identity = (
            ratios(run.seen[block.norm2][0], run.outs[block.mlp][0]),
            torch.eye(n + 1, dtype=torch.float64),
        )
        layers.append(Layer({True: identity, False: identity}, {}, torch.block_diag(token, torch.zeros(n, n))))
    readout = first_token(n + 1) if model.global_pool == "token" else mean_of(n + 1)
    if model.aux_head is not None:
        readout[1 + int(run.outs[model.aux_head][0, :, run.target].argmax())] += 0.5
    first = tokens_of(run.seen[model.network[0][0]], False)
    return Taken(layers, first.norm(dim=-1), readout / readout.sum())


@describes(TNT)
def tnt(model: Any, run: Run) -> Taken:
    """What the inner transformer adds to a patch is the patch's own."""
    layers: list[Layer] = []
    stream = run.outs[model.pos_drop][0]
    first = stream.norm(dim=-1)
    for block in model.blocks:
        next(run.maps)  # of the inner transformer
        attn, inner = block.attn_out, run.outs[block.proj if model.pixel_embed.legacy else block.norm2_proj][0]
        identity = torch.eye(len(stream), dtype=torch.float64)
        own = torch.block_diag(torch.zeros(1, 1), ratios(stream[1:], inner))
        layers.append(Layer(dict.fromkeys((True, False), identity), {}, own))
        stream = run.seen[block.norm_out][0]
        vectors = head_vectors(
            run.outs[block.norm_out][0], attn.v.weight, attn.v.bias, attn.proj.weight, attn.num_heads
        )
        layers.append(attended(stream, run.map(), vectors))
        stream = run.seen[block.norm_mlp][0]
        layers.append(added(stream, run.outs[block.mlp][0]))
        stream = stream + run.outs[block.mlp][0]
    readout = first_token(len(stream))
    if model.global_pool == "avg":
        readout = (1 - readout) / (len(stream) - 1)
    return Taken(layers, first, readout)


@describes(HieraDet)
def hieradet(model: Any, run: Run) -> Taken:
    """Queries and the tokens of the shortcut are pooled in the same cells."""
    layers: list[Layer] = []
    grid = tuple(run.outs[model.patch_embed].shape[1:3])
    for block in model.blocks:
        attn, new, size = block.attn, tuple(run.outs[block].shape[1:3]), block.window_size
        step = 1 if block.q_stride is None else block.q_stride[0]
        stream, read = (tokens_of(x, False) for x in (run.seen[block], run.outs[block.norm1]))
        stream = stream if isinstance(block.proj, nn.Identity) else tokens_of(run.outs[block.proj], False)
        size = size if block.is_windowed else grid
        keys = places(*grid, size, (0, 0))
        queries = places(*new, (size[0] // step, size[1] // step), (0, 0))
        found = next(run.maps)  # windows are a batch
        maps = [torch.zeros(attn.num_heads, len(queries), len(keys), dtype=read.dtype) for _ in found]
        for (i, query), (j, key) in itertools.product(enumerate(queries), enumerate(keys)):
            if query[0] == key[0]:
                for whole, one in zip(maps, found, strict=True):
                    whole[:, i, j] = one[query[0], :, query[1], key[1]]
        values = attn.qkv.weight[2 * attn.dim_out :], attn.qkv.bias[2 * attn.dim_out :]
        vectors = head_vectors(read, *values, attn.proj.weight * block.ls1.gamma[:, None], attn.num_heads)
        layers.append(attended(stream, (maps[0], maps[1]), vectors, window=[window for window, _ in keys]))
        if block.pool is not None:
            cells = stream.reshape(*grid, -1)
            pooled = nn.MaxPool2d(step)(cells.permute(2, 0, 1)).permute(1, 2, 0)
            layers[-1].kept = maximum(nn.MaxPool2d(step), cells, pooled)
        layers.append(added(*(tokens_of(x, False) for x in (run.seen[block.norm2], run.outs[block.ls2]))))
        grid = new
    first = tokens_of(run.seen[model.blocks[0]], False)
    return Taken(layers, first.norm(dim=-1), mean_of(len(queries)))
