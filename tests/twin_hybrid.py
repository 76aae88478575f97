"""The layers of each hybrid family as explicit matrices, from the model's own modules: see `twin_layers`."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from timm.models.fastvit import AttentionBlock, FastVit
from torch import nn

from tests.twin_layers import Layer, Run, T, Taken, added, attended, describes, flat, head_vectors, mean_of


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
