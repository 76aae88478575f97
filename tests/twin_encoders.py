"""Encoders of image patches as explicit matrices, from the model's own modules: see `twin_layers`."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from timm.models.deepseek_vit import DeepseekVitClassifier, DeepseekVitEncoder
from timm.models.gemma4_vit import Gemma4VitClassifier, Gemma4VitEncoder
from timm.models.qwen3_vit import Qwen3VitClassifier, Qwen3VitEncoder
from timm.models.vision_transformer_sam import VisionTransformerSAM
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
    head_vectors,
    mean_of,
    plain_attention,
    tokens_of,
)
from tests.twin_windows import places

EXPLAINED = 1  # the output token, where there are several


@describes(VisionTransformerSAM)
def sam(model: Any, run: Run) -> Taken:
    """The heads are in the batch; the neck is a convolution of single tokens, and one that mixes them."""
    layers = []
    for block in model.blocks:
        attn, (rows, columns) = block.attn, run.seen[block].shape[1:3]
        size = block.window_size or max(rows, columns)
        where = places(rows, columns, (size, size), (0, 0))
        maps, gradients = (x.unflatten(0, (-1, attn.num_heads)) for x in next(run.maps))
        if not block.window_size:
            where = [(0, place) for place in range(rows * columns)]
        stream, read = (tokens_of(x, False) for x in (run.seen[block], run.outs[block.norm1]))
        project = attn.proj.weight
        if not isinstance(block.ls1, nn.Identity):
            project = project * block.ls1.gamma[:, None]
        third = len(attn.qkv.weight) // 3
        vectors = head_vectors(read, attn.qkv.weight[2 * third :], attn.qkv.bias[2 * third :], project, attn.num_heads)
        window = [number for number, _ in where]
        layers.append(attended(stream, dense((maps, gradients), where), vectors, window=window))
        layers.append(added(run.seen[block.norm2][0], run.outs[block.ls2][0]))
    lengths = tokens_of(run.seen[model.blocks[0]], False).norm(dim=-1)
    if isinstance(model.neck, nn.Sequential) and len(model.neck) == 4:
        mixing = model.neck[2]
        old, new = (x[0].permute(1, 2, 0) for x in (run.seen[mixing], run.outs[mixing]))
        layers.append(Layer(convolved(mixing, None, old, new)))
    return Taken(layers, lengths, mean_of(rows * columns))


@describes(Qwen3VitClassifier)
@describes(Qwen3VitEncoder)
def qwen3(model: Any, run: Run) -> Taken:
    """A cell is the concatenation of its normalised patches, row by row."""
    encoder = getattr(model, "encoder", model)
    layers = pre_norm(encoder, run)
    tokens = number = len(run.seen[encoder.blocks[0]][0])
    if encoder.merger is not None:
        merger = encoder.merger
        old, weight = run.outs[merger.norm][0], merger.fc1.weight
        parts = weight.unflatten(1, (merger.merge_size**2, -1)).unbind(1)  # each patch of a cell has its columns
        layers.append(cells(old, merger.merge_size, list(parts), merger.fc1.bias, run.outs[merger.fc1][0]))
        number //= merger.merge_size**2
    return Taken(layers, first_lengths(encoder, run), read(model, number, tokens))


@describes(DeepseekVitClassifier)
@describes(DeepseekVitEncoder)
def deepseek(model: Any, run: Run) -> Taken:
    """In a cell, the values of one channel of all its patches are neighbours."""
    encoder = getattr(model, "encoder", model)
    layers = pre_norm(encoder, run)
    tokens = number = len(run.seen[encoder.blocks[0]][0])
    if encoder.aligner is not None:
        size, first = encoder.aligner.downsample_ratio, encoder.aligner.fc1
        old = run.outs[encoder.norm][0].reshape(*encoder.patch_embed(run.seen[encoder]).shape[1:])
        new = run.outs[first][0]
        layers.append(cells(old, size, [first.weight[:, k :: size**2] for k in range(size**2)], first.bias, new))
        number = len(new)
    return Taken(layers, first_lengths(encoder, run), read(model, number, tokens))


@describes(Gemma4VitClassifier)
@describes(Gemma4VitEncoder)
def gemma4(model: Any, run: Run) -> Taken:
    """Values are normalised, and so is what a branch adds; a soft token is the average of a cell."""
    encoder, layers = getattr(model, "encoder", model), []
    for block in encoder.blocks:
        attn, stream = block.attn, run.seen[block.norm1][0]
        values = run.outs[attn.v_norm][0]  # (n, heads of the keys, d)
        summed = run.seen[block.norm2][0]
        scale = torch.stack([1 / (x.pow(2).mean() + block.norm2.eps).sqrt() for x in summed])
        vectors = torch.zeros(attn.num_heads, len(stream), stream.shape[1], dtype=stream.dtype)
        for h, j in itertools.product(range(attn.num_heads), range(len(stream))):
            part = attn.o_proj.linear.weight[:, h * attn.head_dim : (h + 1) * attn.head_dim]
            vectors[h, j] = block.norm2.weight * (part @ values[j, h // attn.num_kv_groups])
        maps = run.map()
        rebuilt = scale[:, None] * sum(a @ v for a, v in zip(maps[0], vectors, strict=True))
        assert (rebuilt - run.outs[block.norm2][0]).abs().max() < 1e-12 * rebuilt.abs().max()
        layer = attended(stream, maps, vectors)
        layer.attention["vtranm"] = scale[:, None] * layer.attention["vtranm"]
        layers.append(layer)
        layers.append(added(run.seen[block.norm3][0], run.outs[block.norm4][0]))
    tokens, readout = len(stream), mean_of(len(stream))
    if encoder is model:
        image, size, patch = run.seen[model], model.pooler.pooling_kernel_size, model.patch_size
        (rows, columns), across = (image.shape[2] // patch[0], image.shape[3] // patch[1]), None
        across, readout = columns // size, torch.zeros(tokens, dtype=torch.float64)
        for y, x in itertools.product(range(rows), range(columns)):
            if y // size * across + x // size == EXPLAINED:
                readout[y * columns + x] = 1 / size**2
    return Taken(layers, first_lengths(encoder, run), readout)


def pre_norm(encoder: Any, run: Run) -> list[Layer]:
    """Blocks as those of a plain Vision Transformer."""
    layers = []
    for block in encoder.blocks:
        layers.append(plain_attention(block.attn, run.seen[block][0], run.outs[block.norm1][0], run.map()))
        layers.append(added(run.seen[block.norm2][0], run.outs[block.mlp][0]))
    return layers


def first_lengths(encoder: Any, run: Run) -> T:
    """The lengths of the tokens that enter the first block."""
    return run.seen[encoder.blocks[0]][0].norm(dim=-1)


def read(model: Any, number: int, tokens: int) -> T:
    """A classifier averages its final tokens; of an encoder, one is explained."""
    if hasattr(model, "encoder"):
        return mean_of(number)
    readout = torch.zeros(number, dtype=torch.float64)
    readout[EXPLAINED] = 1
    return readout


def cells(old: T, size: int, weights: list[T], bias: T, new: T) -> Layer:
    """Cells of ``(rows, columns, d)``, each patch of which has its own weight; the grid is padded with zeros."""
    rows, columns = old.shape[:2]
    across = -(-columns // size)
    by_length, equal = (torch.zeros(len(new), rows * columns, dtype=old.dtype) for _ in range(2))
    for number in range(len(new)):
        top, left = size * (number // across), size * (number % across)
        found = {}
        for i, j in itertools.product(range(size), range(size)):
            if top + i < rows and left + j < columns:
                found[(top + i) * columns + left + j] = weights[i * size + j] @ old[top + i, left + j]
        rebuilt = sum(found.values()) + bias
        assert (rebuilt - new[number]).abs().max() < 1e-12 * rebuilt.abs().max()
        total = sum(float(part.norm()) for part in found.values())
        for place, part in found.items():
            by_length[number, place] = float(part.norm()) / total
            equal[number, place] = 1 / len(found)
    return Layer({True: by_length, False: equal})
