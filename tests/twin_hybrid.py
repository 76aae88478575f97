"""The layers of each hybrid family as explicit matrices, from the model's own modules: see `twin_layers`."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from timm.layers.attention2d import MultiQueryAttention2d
from timm.models._efficientnet_blocks import MobileAttention
from timm.models.efficientformer import EfficientFormer, MetaBlock1d
from timm.models.fastvit import AttentionBlock, FastVit
from timm.models.mobilenetv3 import MobileNetV3
from timm.models.visformer import Visformer
from torch import nn

from tests.twin_layers import (
    Layer,
    Run,
    T,
    Taken,
    added,
    attended,
    convolved,
    describes,
    flat,
    head_vectors,
    mean_of,
)


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
