"""The layers of each hybrid family as explicit matrices, from the model's own modules: see `twin_layers`."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from timm.layers.attention2d import MultiQueryAttention2d
from timm.models._efficientnet_blocks import MobileAttention
from timm.models.cpubone import CPUBone, CPUBoneBlock
from timm.models.efficientformer import EfficientFormer, MetaBlock1d
from timm.models.efficientformer_v2 import EfficientFormerV2
from timm.models.efficientvit_msra import EfficientVitMsra
from timm.models.fastvit import AttentionBlock, FastVit
from timm.models.iformer import ConvBlock, IFormer, SHMABlock
from timm.models.lowformer import LowFormer, LowFormerBlock
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.nextvit import NextTransformerBlock, NextViT
from timm.models.shvit import SHViT
from timm.models.visformer import Visformer
from torch import nn

from tests.twin_layers import (
    BOTH,
    MIXED_MAPS,
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
    gated_map,
    head_vectors,
    mean_of,
)
from tests.twin_windows import measure, places


def shared(old: T, new: T, conv: Any = None) -> Layer:
    """Of feature maps ``(1, d, rows, columns)``: each new token's equal shares of those that a kernel covers."""
    (rows, columns), (below, across) = old.shape[2:], new.shape[2:]
    matrix = torch.zeros(below * across, rows * columns, dtype=torch.float64)
    size, step, pad = (1, 1, 0) if conv is None else (conv.kernel_size[0], conv.stride[0], conv.padding[0])
    for y, x in itertools.product(range(below), range(across)):
        spots = [(y * step + i - pad, x * step + j - pad) for i, j in itertools.product(range(size), range(size))]
        spots = [(row, column) for row, column in spots if 0 <= row < rows and 0 <= column < columns]
        for row, column in spots:
            matrix[y * across + x, row * columns + column] = 1 / len(spots)
    return Layer({True: matrix, False: matrix})


def fused(conv: Any, norm: Any) -> nn.Conv2d:
    """A convolution that includes the batch norm after it."""
    whole = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, groups=conv.groups
    ).double()
    for channel in range(conv.out_channels):
        factor = norm.weight[channel] / (norm.running_var[channel] + norm.eps) ** 0.5
        before = 0 if conv.bias is None else conv.bias[channel]
        whole.weight[channel] = conv.weight[channel] * factor
        whole.bias[channel] = norm.bias[channel] + (before - norm.running_mean[channel]) * factor
    return whole


def merged(conv: Any, norm: Any, old: T, new: T) -> dict[bool, T]:
    """The shares of a convolution with a batch norm, of feature maps ``(1, d, rows, columns)``."""
    return convolved(fused(conv, norm), None, old[0].permute(1, 2, 0), new[0].permute(1, 2, 0))


def scaled(weight: T, scale: Any) -> T:
    """A projection with the LayerScale after it, if there is one."""
    return weight if isinstance(scale, nn.Identity) else weight * scale.gamma.reshape(-1, 1)


@describes(FastVit)
def fastvit(model: Any, run: Run) -> Taken:
    """A large kernel between the stages with attention, positions and the last convolution stay at their place."""
    layers: list[Layer] = []
    first = None
    for stage in model.stages:
        if not any(isinstance(block, AttentionBlock) for block in stage.blocks):
            continue
        if first is not None:
            down = stage.downsample
            layers.append(shared(run.seen[down], run.outs[down], down.proj[0].large_conv.conv))
            layers.append(shared(run.seen[stage.pos_emb], run.outs[stage.pos_emb]))
        for block in stage.blocks:
            first = run.seen[block] if first is None else first
            attn, read = block.token_mixer, flat(run.outs[block.norm])
            project = scaled(attn.proj.weight, block.layer_scale_1)
            vectors = head_vectors(read, attn.qkv.weight[2 * read.shape[1] :], None, project, attn.num_heads)
            layers.append(attended(flat(run.seen[block]), run.map(), vectors))
            layers.append(added(flat(run.seen[block.mlp]), flat(run.outs[block.layer_scale_2])))
    layers.append(shared(run.seen[model.final_conv], run.outs[model.final_conv]))
    assert first is not None
    return Taken(layers, flat(first).norm(dim=-1), mean_of(run.outs[model.final_conv][0, 0].numel()))


@describes(EfficientFormer)
def efficientformer(model: Any, run: Run) -> Taken:
    """Attention stands in the last blocks only."""
    blocks = [block for block in model.stages[-1].blocks if isinstance(block, MetaBlock1d)]
    layers = []
    for block in blocks:
        attn, stream, read = block.token_mixer, run.seen[block][0], run.outs[block.norm1][0]
        each = 2 * attn.key_dim + attn.val_dim
        chosen = [h * each + 2 * attn.key_dim + i for h in range(attn.num_heads) for i in range(attn.val_dim)]
        values = attn.qkv.weight[chosen], attn.qkv.bias[chosen]
        vectors = head_vectors(read, *values, scaled(attn.proj.weight, block.ls1), attn.num_heads)
        layers.append(attended(stream, run.map(), vectors))
        layers.append(added(run.seen[block.norm2][0], run.outs[block.ls2][0]))
    return Taken(layers, run.seen[blocks[0]][0].norm(dim=-1), mean_of(len(stream)))


@describes(Visformer)
def visformer(model: Any, run: Run) -> Taken:
    """Patches are merged between the stages, and positions are added."""
    layers: list[Layer] = []
    for part in (2, 3):
        if layers:
            embed = getattr(model, f"patch_embed{part}")
            layers.append(Layer(merged(embed.proj, embed.norm, run.seen[embed], run.outs[embed])))
        for block in getattr(model, f"stage{part}"):
            attn, stream = block.attn, flat(run.seen[block])
            weight = attn.qkv.weight.flatten(1)
            values, project = weight[2 * len(weight) // 3 :], attn.proj.weight.flatten(1)
            vectors = head_vectors(flat(run.outs[block.norm1]), values, None, project, attn.num_heads)
            layers.append(attended(stream, run.map(), vectors))
            layers.append(added(flat(run.seen[block.norm2]), flat(run.outs[block.mlp])))
    return Taken(layers, flat(run.seen[model.stage2[0]]).norm(dim=-1), mean_of(len(stream)))


@describes(MobileNetV3)
def mobilenet(model: Any, run: Run) -> Taken:
    """One set of keys and values for all heads, perhaps of a strided convolution; blocks with a shortcut add."""
    layers: list[Layer] = []
    first = None
    for block in (block for stage in model.blocks for block in stage):
        old, new = run.seen[block], run.outs[block]
        if isinstance(block, MobileAttention):
            first = old if first is None else first
            attn, read, keys = block.attn, run.outs[block.norm], None
            if isinstance(attn, MultiQueryAttention2d):
                last, project = attn.value.proj, attn.output.proj
                if attn.kv_stride > 1:
                    keys = merged(attn.value.down_conv, attn.value.norm, read, run.outs[attn.value.norm])
                weight, read = last.weight.flatten(1).repeat(attn.num_heads, 1), run.seen[last]
            else:
                weight, project = attn.qkv.weight.flatten(1)[2 * read.shape[1] :], attn.proj
            vectors = head_vectors(
                flat(read), weight, None, scaled(project.weight.flatten(1), block.layer_scale), attn.num_heads
            )
            layers.append(attended(flat(old), run.map(), vectors, keys))
        elif first is not None and old.shape == new.shape:
            layers.append(added(flat(old), flat(run.outs[block.layer_scale])))
        elif first is not None:
            convs = [m for m in block.modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)]
            layers.append(shared(old, new, convs[0] if convs else None))
    assert first is not None
    return Taken(layers, flat(first).norm(dim=-1), mean_of(new[0, 0].numel()))


def spread(maps: tuple[T, T], rows: int, columns: int, size: int) -> tuple[T, T]:
    """Maps of coarse queries as those of all tokens: each has its query's map, and an equal part of the gradient."""
    across = -(-columns // size)
    query = [y // size * across + x // size for y, x in itertools.product(range(rows), range(columns))]
    attention, gradient = (x[:, query] for x in maps)
    return attention, gradient / torch.tensor([query.count(q) for q in query])[None, :, None]


def on_coarser_grid(attn: Any, run: Run, old: T, read: T, maps: tuple[T, T]) -> Layer:
    """LowFormer's and CPUBone's attention: keys of a depthwise convolution, outputs upsampled."""
    conv, rows, columns = attn.conv_proj.conv, *old.shape[2:]
    made = run.outs[attn.conv_proj]
    if isinstance(conv, nn.Sequential):  # of one row above and one column to the left
        whole = nn.Conv2d(*conv[1].weight.shape[:1] * 2, 3, padding=1, groups=conv[1].groups, bias=False).double()
        whole.weight.zero_()
        whole.weight[:, :, :2, :2] = conv[1].weight
        keys = merged(whole, attn.conv_proj.norm, read, made)
        for way in keys:  # the zeros of its kernel have no share
            for new, past in itertools.product(range(len(keys[way])), range(rows * columns)):
                down, right = past // columns - new // columns, past % columns - new % columns
                keys[way][new, past] *= down in (-1, 0) and right in (-1, 0)
            keys[way] /= keys[way].sum(1, keepdim=True)
    elif conv.kernel_size == (2, 2):  # padded below and to the right
        padded = nn.functional.pad(read, (0, columns % 2, 0, rows % 2))
        keys = merged(conv, attn.conv_proj.norm, padded, made)
        inside = (torch.arange(padded.shape[2])[:, None] < rows) & (torch.arange(padded.shape[3]) < columns)
        keys = {way: share[:, inside.flatten()] for way, share in keys.items()}
        keys = {way: share / share.sum(1, keepdim=True) for way, share in keys.items()}
    else:
        keys = merged(conv, attn.conv_proj.norm, read, made)
    if isinstance(attn.upsampling, nn.ConvTranspose2d):
        kernel = attn.upsampling.weight.sum((2, 3)) / attn.att_stride**2
        project = kernel.T if attn.upsampling.groups == 1 else kernel * attn.o_proj.weight.flatten(1)
    else:
        project = attn.upsampling[0].weight.flatten(1)
    each = attn.head_dim
    chosen = [h * 3 * each + 2 * each + i for h in range(attn.num_heads) for i in range(each)]
    vectors = head_vectors(flat(made), attn.pwise.weight.flatten(1)[chosen], None, project, attn.num_heads)
    return attended(flat(old), spread(maps, rows, columns, attn.att_stride), vectors, keys)


@describes(LowFormer)
def lowformer(model: Any, run: Run) -> Taken:
    """Three residual adds in every block with attention."""
    layers: list[Layer] = []
    first = None
    for block in (block for blocks in model.stages for block in blocks):
        if isinstance(block, LowFormerBlock):
            first = run.seen[block] if first is None else first
            main = block.attn.main
            norm, attn = main if isinstance(main, nn.Sequential) else (None, main)
            read = run.seen[main] if norm is None else run.outs[norm]
            layers.append(on_coarser_grid(attn, run, run.seen[block.attn], read, run.map()))
            parts = [part for part in (block.mlp, block.local) if not isinstance(part, nn.Identity)]
            layers += [added(flat(run.seen[part]), flat(run.outs[part.main])) for part in parts]
        elif first is not None:
            strided = next(m for m in block.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2))
            layers.append(shared(run.seen[block], run.outs[block], strided))
    assert first is not None
    return Taken(layers, flat(first).norm(dim=-1), mean_of(run.outs[model.stages][0, 0].numel()))


@describes(CPUBone)
def cpubone(model: Any, run: Run) -> Taken:
    """As LowFormer's."""
    layers: list[Layer] = []
    first = None
    for block in (block for blocks in model.stages for block in blocks):
        if isinstance(block, CPUBoneBlock):
            first = run.seen[block] if first is None else first
            (context, mlp), local = block.total
            norm, attn = context.main
            layers.append(on_coarser_grid(attn, run, run.seen[context], run.outs[norm], run.map()))
            layers += [added(flat(run.seen[part]), flat(run.outs[part.main])) for part in (mlp, local)]
        elif first is not None:
            strided = next(m for m in block.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2))
            layers.append(shared(run.seen[block], run.outs[block], strided))
    assert first is not None
    return Taken(layers, flat(first).norm(dim=-1), mean_of(run.outs[model.stages][0, 0].numel()))


@describes(IFormer)
def iformer(model: Any, run: Run) -> Taken:
    """One head, whose vectors are measured without the gate."""
    layers: list[Layer] = []
    first = None
    for stage in model.stages:
        if first is not None:
            down = stage.downsample
            layers.append(Layer(merged(down.c, down.bn, run.seen[down], run.outs[down])))
        for block in stage.blocks:
            residual = block.cpe if not isinstance(block, ConvBlock | SHMABlock) and hasattr(block, "cpe") else None
            residual = block.mixer if residual is None else residual
            stream = flat(run.seen[residual])
            scale = 1 if residual.gamma is None else residual.gamma.flatten()
            if isinstance(block, SHMABlock):
                first = stream if first is None else first
                attn = residual.module
                values = run.outs[attn.v_gate].sigmoid().chunk(2, 1)[0]
                project = fused(attn.proj.c, attn.proj.bn).weight.flatten(1) * scale[:, None]
                maps = run.map()
                pair = maps[0][None], maps[1][None]
                identity = torch.eye(values.shape[1], dtype=torch.float64)
                layers.append(attended(stream, pair, head_vectors(flat(values), identity, None, project, 1)))
            elif first is not None:
                layers.append(added(stream, flat(run.outs[residual.module]) * scale))
    assert first is not None
    return Taken(layers, first.norm(dim=-1), mean_of(len(stream)))


def talking(model: Any, outs: Any, maps: list[T]) -> list[T]:
    """The maps after the second talking heads, for those attentions that have them."""
    attentions = [module for module in model.modules() if hasattr(module, "v_local")]
    heads = [getattr(attn, "talking_head2", None) for attn in attentions]
    return [plain if head is None else outs[head] for head, plain in zip(heads, maps, strict=True)]


MIXED_MAPS[EfficientFormerV2] = talking


@describes(EfficientFormerV2)
def efficientformer_v2(model: Any, run: Run) -> Taken:
    """Vectors without the activation; between the stages a convolution and attention from the old tokens to the new."""
    layers: list[Layer] = []
    first = None

    def vectors_of(attn: Any, read: T, scale: Any) -> T:
        values = fused(attn.v.conv, attn.v.bn)
        project = fused(attn.proj.conv, attn.proj.bn).weight.flatten(1) * scale
        return head_vectors(flat(read), values.weight.flatten(1), values.bias, project, attn.num_heads)

    for stage in model.stages:
        down = stage.downsample
        if first is not None:
            old, conv = run.seen[down], fused(down.conv.conv, down.conv.bn)
            kept = merged(down.conv.conv, down.conv.bn, old, run.outs[down.conv])
            given = torch.stack([conv.weight.sum((2, 3)) @ token for token in flat(old)])
            attention, gradient = run.map()
            whole, vectors = torch.zeros_like(attention[0]), vectors_of(down.attn, old, 1)
            for head, (a, g) in enumerate(zip(attention, gradient, strict=True)):
                weights = measure(given, vectors[head], BOTH, [0] * len(given))
                whole += g.clamp(min=0) * a * weights[None] / len(attention)
            layers.append(Layer(kept, {"vtranm": whole, "rollout": attention.mean(0)}))
        for block in stage.blocks:
            attn = block.token_mixer
            if attn is not None:
                stream = run.seen[block]
                first = stream if first is None else first
                read, keys, maps = stream, None, run.map()
                if attn.stride_conv is not None:
                    read = run.outs[attn.stride_conv]
                    keys = merged(attn.stride_conv.conv, attn.stride_conv.bn, stream, read)
                    maps = spread(maps, *stream.shape[2:], 2)
                vectors = vectors_of(attn, read, block.ls1.gamma.reshape(-1, 1))
                layers.append(attended(flat(stream), maps, vectors, keys))
            if first is not None:
                layers.append(added(flat(run.seen[block.mlp]), flat(run.outs[block.ls2])))
    assert first is not None
    return Taken(layers, flat(first).norm(dim=-1), mean_of(run.seen[model.norm][0, 0].numel()))


def residual(layer: Any, run: Run) -> Layer:
    """What a layer adds to its input."""
    return added(flat(run.seen[layer]), flat(run.outs[layer.m]))


@describes(SHViT)
def shvit(model: Any, run: Run) -> Taken:
    """One head reads and gives some of the channels."""
    layers: list[Layer] = []
    first = None
    for stage in model.stages:
        if first is not None:
            for layer in stage.downsample:
                whole = shared(run.seen[layer], run.outs[layer], layer.conv2.c) if hasattr(layer, "conv2") else None
                layers.append(residual(layer, run) if whole is None else whole)
        if any(isinstance(block.mixer, nn.Identity) for block in stage.blocks):
            continue
        for block in stage.blocks:
            first = run.seen[block] if first is None else first
            attn, maps = block.mixer.m, run.map()
            values = flat(run.outs[attn.qkv])[:, 2 * attn.qk_dim :]
            project = fused(attn.proj[1].c, attn.proj[1].bn).weight.flatten(1)
            layers.append(residual(block.conv, run))
            stream, given = flat(run.seen[block.mixer]), flat(run.seen[attn.proj[0]])
            factors, each = (given > 0).double(), (maps[0][None], maps[1][None])
            mixed = gated_map(stream, each, values[None], project[:, : attn.pdim], factors)
            rest = (given * factors)[:, attn.pdim :] @ project[:, attn.pdim :].T
            found = added(stream, rest)
            found.attention = {"vtranm": mixed, "rollout": maps[0]}
            layers.append(found)
            layers.append(residual(block.ffn, run))
    assert first is not None
    return Taken(layers, flat(first).norm(dim=-1), mean_of(run.outs[model.stages][0, 0].numel()))


@describes(EfficientVitMsra)
def efficientvit_msra(model: Any, run: Run) -> Taken:
    """Heads are computed one after the other, in windows."""
    layers: list[Layer] = []
    for stage in model.stages:
        if not isinstance(stage.downsample, nn.Identity):
            res1, merge, res2 = stage.downsample
            layers += [residual(layer, run) for layer in res1]
            layers.append(shared(run.seen[merge], run.outs[merge], merge.conv2.conv))
            layers += [residual(layer, run) for layer in res2]
        for block in stage.blocks:
            layers += [residual(layer, run) for layer in (block.dw0, block.ffn0)]
            attn, (rows, columns) = block.mixer.m.attn, run.seen[block].shape[2:]
            where = places(rows, columns, (attn.resolution, attn.resolution), (0, 0))
            heads = [next(run.maps) for _ in range(attn.num_heads)]
            maps = dense((torch.stack([a for a, _ in heads], 1), torch.stack([g for _, g in heads], 1)), where)
            project = fused(attn.proj[1].conv, attn.proj[1].bn).weight.flatten(1)
            vectors = torch.zeros(attn.num_heads, len(where), len(project), dtype=torch.float64)
            for h, qkv in enumerate(attn.qkvs):
                part = project[:, h * attn.val_dim : (h + 1) * attn.val_dim]
                values = run.outs[qkv].flatten(2)[:, 2 * attn.key_dim :]
                for token, (window, place) in enumerate(where):
                    vectors[h, token] = part @ values[window, :, place]
            windows = [window for window, _ in where]
            layers.append(attended(flat(run.seen[block.mixer]), maps, vectors, window=windows))
            layers += [residual(layer, run) for layer in (block.dw1, block.ffn1)]
    first = flat(run.seen[model.stages[0].blocks[0]])
    return Taken(layers, first.norm(dim=-1), mean_of(rows * columns))


def runs(attn: Any, read: T) -> dict[bool, T] | None:
    """Keys that average tokens which follow one another; a batch norm scales all of them alike."""
    if attn.sr is None:
        return None
    size, number = attn.N_ratio, len(read) // attn.N_ratio
    scale = attn.norm.weight / (attn.norm.running_var + attn.norm.eps) ** 0.5
    lengths = [float((token * scale).norm()) for token in read]
    keys = {way: torch.zeros(number, len(read), dtype=torch.float64) for way in (True, False)}
    for key in range(number):
        part = range(key * size, (key + 1) * size)
        for token in part:
            keys[True][key, token] = lengths[token] / sum(lengths[i] for i in part)
            keys[False][key, token] = 1 / size
    return keys


@describes(NextViT)
def nextvit(model: Any, run: Run) -> Taken:
    """A convolution stands beside what attention gives, and both go on together."""
    layers: list[Layer] = []
    first = None
    for block in (block for stage in model.stages for block in stage.blocks):
        embed = block.patch_embed
        if first is not None and not isinstance(embed.conv, nn.Identity):
            old, new = run.seen[embed], run.outs[embed]
            if isinstance(embed.pool, nn.Identity):
                layers.append(Layer(merged(embed.conv, embed.norm, old, new)))
            else:
                layers.append(shared(old, new, nn.Conv2d(1, 1, 2, 2)))
        if isinstance(block, NextTransformerBlock):
            stream, attn = run.outs[embed], block.e_mhsa
            first = stream if first is None else first
            read = run.seen[attn.v][0]
            vectors = head_vectors(read, attn.v.weight, attn.v.bias, attn.proj.weight, attn.num_heads)
            layers.append(attended(flat(stream), run.map(), vectors, runs(attn, run.seen[attn][0])))
            layers.append(shared(stream, run.seen[block.norm2]))
            layers.append(added(flat(run.seen[block.norm2]), flat(run.outs[block.mlp])))
        elif first is not None:
            layers.append(added(flat(run.outs[embed]), flat(run.outs[block.mhca])))
            layers.append(added(flat(run.seen[block.norm]), flat(run.outs[block.mlp])))
    assert first is not None
    return Taken(layers, flat(first).norm(dim=-1), mean_of(run.outs[model.norm][0, 0].numel()))
