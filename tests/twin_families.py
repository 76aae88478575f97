"""The layers of each family as explicit matrices, from the model's own modules: see `twin_layers`."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from timm.models.cait import Cait
from timm.models.convit import GPSA, ConVit
from timm.models.davit import DaVit, SpatialBlock
from timm.models.gcvit import GlobalContextVit
from timm.models.hiera import Hiera
from timm.models.maxxvit import MaxxVit, MaxxVitBlock, TransformerBlock2d
from timm.models.metaformer import MetaFormer
from timm.models.nest import Nest, deblockify
from timm.models.pit import PoolingVisionTransformer
from timm.models.pvt_v2 import PyramidVisionTransformerV2
from timm.models.tiny_vit import ConvLayer, TinyVit
from timm.models.twins import LocallyGroupedAttn, Twins
from torch import nn

from tests.twin_layers import (
    Layer,
    Run,
    T,
    Taken,
    added,
    attended,
    convolved,
    dense,
    describes,
    flat,
    head_vectors,
    maximum,
    mean_of,
    normalised,
    plain_attention,
    tokens_of,
    with_reduced_keys,
)
from tests.twin_windows import places


@describes(PyramidVisionTransformerV2)
def pvt_v2(model: Any, run: Run) -> Taken:
    """Overlapping patches between the stages."""
    layers = []
    for stage in model.stages:
        if stage.downsample is not None:
            old, new = run.seen[stage.downsample][0].permute(1, 2, 0), run.outs[stage.downsample][0]
            layers.append(Layer(convolved(stage.downsample.proj, stage.downsample.norm, old, new)))
        rows, columns = run.outs[stage][0].shape[1:]
        for block in stage.blocks:
            layers.append(with_reduced_keys(block, run, (rows, columns)))
            layers.append(added(run.seen[block.norm2][0], run.outs[block.mlp][0]))
    lengths = run.outs[model.patch_embed][0].flatten(0, 1).norm(dim=-1)
    return Taken(layers, lengths, mean_of(rows * columns))


@describes(PoolingVisionTransformer)
def pit(model: Any, run: Run) -> Taken:
    """Class tokens pass from stage to stage by themselves."""
    layers, prefix = [], model.num_tokens
    for part in model.transformers:
        stream = run.seen[part.blocks[0]][0]
        if part.pool is not None:
            old, new = (x[0].permute(1, 2, 0) for x in (run.seen[part.pool], run.outs[part.pool][0]))
            shares = convolved(part.pool.conv, None, old, new)
            layers.append(Layer({way: torch.block_diag(torch.eye(prefix), one) for way, one in shares.items()}))
        for block in part.blocks:
            layers.append(plain_attention(block.attn, run.seen[block][0], run.outs[block.norm1][0], run.map()))
            layers.append(added(run.seen[block.norm2][0], run.outs[block.mlp][0]))
    readout = torch.zeros(len(stream), dtype=torch.float64)
    readout[:prefix] = 1 / prefix
    return Taken(layers, run.seen[model.transformers[0].blocks[0]][0].norm(dim=-1), readout)


@describes(Twins)
def twins(model: Any, run: Run) -> Taken:
    """After the first block of every stage, a convolution adds positions."""
    layers = []
    for number, blocks in enumerate(model.blocks):
        embed = model.patch_embeds[number]
        rows, columns = run.outs[embed][1]
        if number:
            old, new = run.seen[embed][0].permute(1, 2, 0), run.outs[embed][0][0].reshape(rows, columns, -1)
            layers.append(Layer(convolved(embed.proj, embed.norm, old, new)))
        for index, block in enumerate(blocks):
            if isinstance(block.attn, LocallyGroupedAttn):
                where = places(rows, columns, (block.attn.ws, block.attn.ws), (0, 0))
                stream, read = run.seen[block.norm1][0], run.outs[block.norm1][0]
                layers.append(plain_attention(block.attn, stream, read, dense(run.map(), where), where))
            else:
                layers.append(with_reduced_keys(block, run, (rows, columns)))
            layers.append(added(run.seen[block.norm2][0], run.outs[block.mlp][0]))
            if index == 0:
                positions = model.pos_block[number]
                layers.append(added(run.seen[positions][0], run.outs[positions][0] - run.seen[positions][0]))
    first = run.seen[model.blocks[0][0]][0]
    return Taken(layers, first.norm(dim=-1), mean_of(rows * columns))


@describes(DaVit)
def davit(model: Any, run: Run) -> Taken:
    """Attention over channels is computed for every token by itself."""
    layers = []
    for stage in model.stages:
        down = stage.downsample
        if not isinstance(down, nn.Identity):
            normed, new = run.outs[down.norm][0].permute(1, 2, 0), run.outs[down][0].permute(1, 2, 0)
            layers.append(Layer(convolved(down.conv, None, normed, new)))
        rows, columns = run.outs[stage].shape[2:]
        for layer in (layer for pair in stage.blocks for layer in pair):
            stream, read = run.seen[layer.norm1][0], run.outs[layer.norm1][0]
            layers.append(added(flat(run.seen[layer.cpe1]), flat(run.outs[layer.cpe1] - run.seen[layer.cpe1])))
            maps = next(run.maps)  # windows are a batch
            if isinstance(layer, SpatialBlock):
                where = places(rows, columns, layer.window_size, (0, 0))
                layers.append(plain_attention(layer.attn, stream, read, dense(maps, where), where))
            else:
                layers.append(added(stream, run.outs[layer.attn][0]))
            layers.append(added(flat(run.seen[layer.cpe2]), flat(run.outs[layer.cpe2] - run.seen[layer.cpe2])))
            layers.append(added(run.seen[layer.norm2][0], run.outs[layer.mlp][0]))
    first = flat(run.seen[next(iter(model.stages[0].blocks[0])).cpe1])
    return Taken(layers, first.norm(dim=-1), mean_of(rows * columns))


def shortcut(block: Any, run: Run) -> tuple[list[Layer], T]:
    """Of a block: the average of 2 x 2 tokens and a projection, and the tokens after it."""
    if isinstance(block.shortcut, nn.Identity):
        return [], flat(run.seen[block])
    old, new = run.seen[block.shortcut][0], run.outs[block.shortcut][0]
    conv = nn.Conv2d(len(old), len(new), 2, 2, dtype=old.dtype)
    expand = block.shortcut.expand
    projection = torch.eye(len(old)) if isinstance(expand, nn.Identity) else expand.weight[:, :, 0, 0]
    for i, j in itertools.product(range(2), range(2)):
        conv.weight[:, :, i, j] = projection / 4
    conv.bias.copy_(torch.zeros(len(new)) if isinstance(expand, nn.Identity) else expand.bias)
    return [Layer(convolved(conv, None, old.permute(1, 2, 0), new.permute(1, 2, 0)))], new.flatten(1).T


def values_of(attn: Any) -> tuple[T, T]:
    """Weight and bias of the values: queries, keys and values stand side by side, in every head or for all of them."""
    weight, bias, size = attn.qkv.weight.flatten(1), attn.qkv.bias, attn.dim_head
    if not attn.head_first:
        return weight[-attn.num_heads * size :], bias[-attn.num_heads * size :]
    rows = [h * 3 * size + 2 * size + i for h in range(attn.num_heads) for i in range(size)]
    return weight[rows], bias[rows]


@describes(MaxxVit)
def maxvit(model: Any, run: Run) -> Taken:
    """Convolutional blocks add to their shortcut; groups are windows, or spread over the grid."""
    layers = []

    def attention(block: Any, stream: T, first: bool, where: Any, maps: tuple[T, T]) -> None:
        read, attn = tokens_of(run.outs[block.norm1], first), block.attn
        scale = 1 if isinstance(block.ls1, nn.Identity) else block.ls1.gamma
        project = attn.proj.weight.flatten(1) * (scale[:, None] if torch.is_tensor(scale) else scale)
        vectors = head_vectors(read, *values_of(attn), project, attn.num_heads)
        layers.append(attended(stream, maps, vectors, window=[window for window, _ in where] if where else None))
        layers.append(added(tokens_of(run.seen[block.norm2], first), tokens_of(run.outs[block.ls2], first)))

    for block in (block for stage in model.stages for block in stage.blocks):
        convolutional = block.conv if isinstance(block, MaxxVitBlock) else block
        found, stream = shortcut(convolutional, run)
        layers += found
        if isinstance(block, TransformerBlock2d):
            attention(block, stream, True, None, run.map())
            continue
        layers.append(added(stream, flat(run.outs[convolutional]) - stream))
        if isinstance(block, MaxxVitBlock):
            rows, columns = run.outs[block].shape[2:]
            for part in (part for part in (block.attn_block, block.attn_grid) if part is not None):
                high, wide = part.partition_size
                where = places(rows, columns, (high, wide), (0, 0))
                if not part.partition_block:
                    down, across = rows // high, columns // wide
                    where = [
                        (y % down * across + x % across, y // down * wide + x // across)
                        for y, x in itertools.product(range(rows), range(columns))
                    ]
                stream = tokens_of(run.seen[part], block.nchw_attn)
                attention(part, stream, block.nchw_attn, where, dense(next(run.maps), where))
    first = flat(run.outs[model.stem])
    return Taken(layers, first.norm(dim=-1), mean_of(run.outs[model.stages][0, 0].numel()))


@describes(Nest)
def nest(model: Any, run: Run) -> Taken:
    """Blocks are windows; between the levels a convolution with a norm, and a maximum."""
    layers = []
    for level in model.levels:
        if not isinstance(level.pool, nn.Identity):
            old, between, new = run.seen[level.pool], run.seen[level.pool.pool], run.outs[level.pool]
            old, between, new = (x[0].permute(1, 2, 0) for x in (old, between, new))
            layers.append(Layer(convolved(level.pool.conv, level.pool.norm, old, between)))
            layers.append(Layer(maximum(level.pool.pool, between, new)))

        def tokens(x: T, size: int = level.block_size) -> T:
            return deblockify(x, size)[0].flatten(0, 1)

        for layer in level.transformer_encoder:
            stream, read = tokens(run.seen[layer.norm1]), tokens(run.outs[layer.norm1])
            side = round(len(stream) ** 0.5)
            where = places(side, side, (level.block_size, level.block_size), (0, 0))
            attention, gradient = (x.transpose(0, 1) for x in run.map())  # (H, blocks, n, n)
            heads, width = layer.attn.num_heads, len(layer.attn.proj.weight)
            # head h is every heads-th of the channels that are projected
            order = [c * heads + h for h in range(heads) for c in range(width // heads)]
            project, maps = layer.attn.proj.weight[:, order], dense((attention, gradient), where)
            values = layer.attn.qkv.weight[2 * width :], layer.attn.qkv.bias[2 * width :]
            vectors = head_vectors(read, *values, project, heads)
            layers.append(attended(stream, maps, vectors, window=[block for block, _ in where]))
            layers.append(added(tokens(run.seen[layer.norm2]), tokens(run.outs[layer.mlp])))
    first = model.levels[0]
    lengths = deblockify(run.seen[first.transformer_encoder[0]], first.block_size)[0].flatten(0, 1).norm(dim=-1)
    return Taken(layers, lengths, mean_of(len(stream)))


@describes(GlobalContextVit)
def gcvit(model: Any, run: Run) -> Taken:
    """Global queries are rows of the maps like any other."""
    layers = []
    for stage in model.stages:
        down = stage.downsample
        if not isinstance(down, nn.Identity):
            stream, after = run.seen[down.conv_block], run.seen[down.reduction]
            layers.append(added(flat(stream), flat(after) - flat(stream)))
            old, new = after[0].permute(1, 2, 0), run.outs[down][0].permute(1, 2, 0)
            layers.append(Layer(convolved(down.reduction, down.norm2, old, new)))
        for block in stage.blocks:
            rows, columns = run.outs[block].shape[1:3]
            where, attn = places(rows, columns, block.window_size, (0, 0)), block.attn
            stream, read = (tokens_of(x, False) for x in (run.seen[block], run.outs[block.norm1]))
            width = len(attn.proj.weight)
            values = attn.qkv.weight[-width:], attn.qkv.bias[-width:]
            vectors = head_vectors(read, *values, attn.proj.weight * block.ls1.gamma[:, None], attn.num_heads)
            maps = dense(next(run.maps), where)
            layers.append(attended(stream, maps, vectors, window=[window for window, _ in where]))
            layers.append(added(tokens_of(run.seen[block.norm2], False), tokens_of(run.outs[block.ls2], False)))
    return Taken(layers, flat(run.outs[model.stem]).norm(dim=-1), mean_of(rows * columns))


@describes(TinyVit)
def tiny_vit(model: Any, run: Run) -> Taken:
    """Depthwise convolutions stand between the layers, not beside them."""
    layers = []

    def convolution(module: Any) -> None:
        old, new = (x[0].permute(1, 2, 0) for x in (run.seen[module], run.outs[module]))
        layers.append(Layer(convolved(normalised(module), None, old, new)))

    for stage in model.stages:
        if isinstance(stage, ConvLayer):
            for block in stage.blocks:
                stream = flat(run.seen[block])
                layers.append(added(stream, flat(run.seen[block.act3]) - stream))
            continue
        convolution(stage.downsample.conv2)
        for block in stage.blocks:
            (rows, columns), attn, size = run.seen[block].shape[1:3], block.attn, block.window_size
            where, stream = places(rows, columns, (size, size), (0, 0)), tokens_of(run.seen[block], False)
            read = nn.functional.layer_norm(stream, stream.shape[1:], attn.norm.weight, attn.norm.bias, attn.norm.eps)
            each = 2 * attn.key_dim + attn.val_dim
            chosen = [h * each + 2 * attn.key_dim + i for h in range(attn.num_heads) for i in range(attn.val_dim)]
            values = attn.qkv.weight[chosen], attn.qkv.bias[chosen]
            vectors = head_vectors(read, *values, attn.proj.weight, attn.num_heads)
            maps = dense(next(run.maps), where)
            layers.append(attended(stream, maps, vectors, window=[window for window, _ in where]))
            convolution(block.local_conv)
            layers.append(added(run.seen[block.mlp][0], run.outs[block.mlp][0]))
    return Taken(layers, flat(run.outs[model.patch_embed]).norm(dim=-1), mean_of(rows * columns))


def joined_pools(old: T, grid: tuple[int, int]) -> dict[bool, T]:
    """Shares of tokens in cells of 2 x 2, whose maxima and averages stand side by side."""
    rows, columns = grid
    shares = {way: torch.zeros(rows * columns // 4, rows * columns, dtype=old.dtype) for way in (True, False)}
    for y, x in itertools.product(range(rows // 2), range(columns // 2)):
        cell = [(2 * y + i) * columns + 2 * x + j for i, j in itertools.product(range(2), range(2))]
        best = old[cell].argmax(0).tolist()
        won = [torch.stack([old[p, c] * (cell[best[c]] == p) for c in range(old.shape[1])]) for p in cell]
        lengths = [float(torch.cat([w, old[p] / 4]).norm()) for w, p in zip(won, cell, strict=True)]
        for place, length in zip(cell, lengths, strict=True):
            shares[True][y * columns // 2 + x, place] = length / sum(lengths)
            shares[False][y * columns // 2 + x, place] = 1 / 4
    return shares


@describes(Hiera)
def hiera(model: Any, run: Run) -> Taken:
    """Queries are pooled tokens; keys are compared with what the shortcut pools."""
    layers = []

    def places_after(index: int) -> tuple[list[int], tuple[int, int]]:
        rows, columns = model.reroll.schedule[index][1]
        by_place = model.reroll(torch.arange(rows * columns)[None, :, None], index).flatten().tolist()
        return [by_place.index(token) for token in range(rows * columns)], (rows, columns)

    def in_image(x: T, order: list[int]) -> T:
        moved = torch.zeros_like(x[0])
        for token, place in enumerate(order):
            moved[place] = x[0, token]
        return moved

    for index, block in enumerate(model.blocks):
        (old, grid), (new, _), attn = places_after(max(index - 1, 0)), places_after(index), block.attn
        own, read = (in_image(x, old) for x in (run.seen[block], run.outs[block.norm1]))
        joins = block.do_expand and block.proj is None
        own = in_image(run.outs[block.proj], old) if block.do_expand and not joins else own
        single = own
        own = torch.cat([own, own / 4], 1) if joins else own
        found = [x if attn.use_mask_unit_attn else x[:, None] for x in run.map()]  # (H, units, queries, keys)
        units, maps = found[0].shape[1], [torch.zeros(attn.heads, len(new), len(old), dtype=own.dtype) for _ in found]
        window = [0] * len(old)
        for unit, j in itertools.product(range(units), range(len(old) // units)):
            window[old[j * units + unit]] = unit
            for i in range(len(new) // units):
                for whole, one in zip(maps, found, strict=True):
                    whole[:, new[i * units + unit], old[j * units + unit]] = one[:, unit, i, j]
        size, scale = attn.heads * attn.head_dim, getattr(block.ls1, "gamma", torch.ones(1))
        values = attn.qkv.weight[2 * size :], attn.qkv.bias[2 * size :]
        vectors = head_vectors(read, *values, attn.proj.weight * scale[:, None], attn.heads)
        layers.append(attended(own, (maps[0], maps[1]), vectors, window=window))
        if len(new) < len(old):
            pool, cells = nn.MaxPool2d(2), own.reshape(*grid, -1)
            pooled = pool(cells.permute(2, 0, 1)).permute(1, 2, 0)
            layers[-1].kept = joined_pools(single, grid) if joins else maximum(pool, cells, pooled)
        layers.append(added(*(in_image(x, new) for x in (run.seen[block.norm2], run.outs[block.ls2]))))
    first = in_image(run.seen[model.blocks[0]], places_after(0)[0])
    return Taken(layers, first.norm(dim=-1), mean_of(len(new)))


@describes(MetaFormer)
def metaformer(model: Any, run: Run) -> Taken:
    """The stream is scaled before each add, which moves nothing between tokens."""
    layers = []
    for stage in model.stages:
        down, first = stage.downsample, stage.use_nchw
        if not isinstance(down, nn.Identity):
            old, new = (run.outs[module][0].permute(1, 2, 0) for module in (down.norm, down))
            layers.append(Layer(convolved(down.conv, None, old, new)))
        for block in stage.blocks:
            stream, read = (flat(x) if first else x[0] for x in (run.outs[block.res_scale1], run.outs[block.norm1]))
            if first:
                layers.append(added(stream, flat(run.outs[block.layer_scale1])))
            else:
                attn = block.token_mixer
                project = attn.proj.weight * block.layer_scale1.scale[:, None]
                values = attn.qkv.weight[2 * attn.attention_dim :]
                layers.append(attended(stream, run.map(), head_vectors(read, values, None, project, attn.num_heads)))
            pair = run.outs[block.res_scale2], run.outs[block.layer_scale2]
            layers.append(added(*(flat(x) if first else x[0] for x in pair)))
    return Taken(layers, flat(run.outs[model.stem]).norm(dim=-1), mean_of(len(stream)))


@describes(Cait)
def cait(model: Any, run: Run) -> Taken:
    """Talking heads, then a class token that alone is changed."""
    layers = []
    for block in model.blocks:
        attn, stream, read = block.attn, run.seen[block][0], run.outs[block.norm1][0]
        values = attn.qkv.weight[2 * stream.shape[1] :], attn.qkv.bias[2 * stream.shape[1] :]
        vectors = head_vectors(read, *values, attn.proj.weight * block.gamma_1[:, None], attn.num_heads)
        layers.append(attended(stream, run.map(), vectors))
        layers.append(added(run.seen[block.norm2][0], run.outs[block.mlp][0] * block.gamma_2))
    n = len(stream)
    joined = torch.cat([torch.zeros(1, n), torch.eye(n)]).double()
    layers.append(Layer({True: joined, False: joined}))
    for block in model.blocks_token_only:
        attn, stream, read = block.attn, run.seen[block.norm1][0], run.outs[block.norm1][0]
        project = attn.proj.weight * block.gamma_1[:, None]
        vectors = head_vectors(read, attn.v.weight, attn.v.bias, project, attn.num_heads)
        maps = [torch.cat([x, x.new_zeros(attn.num_heads, n, n + 1)], 1) for x in run.map()]
        layers.append(attended(stream, (maps[0], maps[1]), vectors))
        token = added(run.seen[block.norm2][0], run.outs[block.mlp][0] * block.gamma_2).feed_forward
        identity = torch.eye(n + 1, dtype=torch.float64)
        layers.append(Layer({True: identity, False: identity}, {}, torch.block_diag(token, torch.zeros(n, n))))
    readout = torch.zeros(n + 1, dtype=torch.float64)
    readout[0] = 1
    return Taken(layers, run.seen[model.blocks[0]][0].norm(dim=-1), readout)


@describes(ConVit)
def convit(model: Any, run: Run) -> Taken:
    """The class token joins after the blocks that are gated."""
    layers = []
    for index, block in enumerate(model.blocks):
        attn, stream, read = block.attn, run.seen[block][0], run.outs[block.norm1][0]
        if index == model.local_up_to_layer:
            n = len(stream) - 1
            joined = torch.cat([torch.zeros(1, n), torch.eye(n)]).double()
            layers.append(Layer({True: joined, False: joined}))
        weight = attn.v.weight if isinstance(attn, GPSA) else attn.qkv.weight[2 * stream.shape[1] :]
        vectors = head_vectors(read, weight, None, attn.proj.weight, attn.num_heads)
        layers.append(attended(stream, run.map(), vectors))
        layers.append(added(run.seen[block.norm2][0], run.outs[block.mlp][0]))
    readout = torch.zeros(n + 1, dtype=torch.float64)
    readout[0] = 1
    return Taken(layers, run.seen[model.blocks[0]][0].norm(dim=-1), readout)
