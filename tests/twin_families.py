"""Reference implementation for models whose tokens pass through convolutions, poolings or reduced keys.

With loops, in float64, one image at a time, and nothing from the package. Every layer becomes an explicit matrix from
its old tokens to its new ones, built from the model's own modules; the matrices are multiplied from the first layer to
the last. The vectors are verified at the same time: each change of resolution is reconstructed from them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from timm.layers import to_2tuple
from timm.models.cait import Cait, TalkingHeadAttn
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

from tests.families import build, images
from tests.twin_windows import KeepSoftmax, linear_part, measure, places

T = torch.Tensor
BOTH = ("length", "direction")


@dataclass
class Layer:
    """Matrices from the old tokens to the new ones, ``(new, old)``."""

    kept: dict[bool, T]  # of what is added to: by lengths, and by equal shares
    attention: dict[str, T] = field(default_factory=dict)  # of each method
    feed_forward: T | None = None


@dataclass
class Run:
    """One pass: inputs and outputs of every module, and every attention map with its gradient."""

    seen: dict[nn.Module, Any]
    outs: dict[nn.Module, Any]
    maps: Iterator[tuple[T, T]]

    def map(self) -> tuple[T, T]:
        """The next map and its gradient, of the only image."""
        attention, gradient = next(self.maps)
        return attention[0], gradient[0]


@dataclass
class Taken:
    """A model as a list of matrices, with the lengths of its first tokens and the weights of its last."""

    layers: list[Layer]
    lengths: T
    readout: T


Describe = Callable[[Any, Run], Taken]
DESCRIBED: dict[type[nn.Module], Describe] = {}


def describes(model: type[nn.Module]) -> Callable[[Describe], Describe]:
    """Use this function for a class of models."""

    def keep(describe: Describe) -> Describe:
        DESCRIBED[model] = describe
        return describe

    return keep


@cache
def of_model(name: str, target: int) -> tuple[Any, Taken]:
    """A tiny model, and the matrices of one image's pass, for the probability of a class."""
    model = build(name)
    seen: dict[nn.Module, Any] = {}
    outs: dict[nn.Module, Any] = {}

    def keep(module: nn.Module, arguments: Any, out: Any) -> None:
        seen[module], outs[module] = arguments[0] if arguments else None, out

    for module in model.modules():
        module.register_forward_hook(keep)
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    with KeepSoftmax() as kept:
        scores = model(images(name, 1).requires_grad_(True))
    mixing = [module for module in model.modules() if isinstance(module, TalkingHeadAttn | GPSA)]
    softmaxes = sum(2 if isinstance(module, GPSA) else 1 for module in mixing)
    kept.maps[:softmaxes] = [seen[module.attn_drop] for module in mixing]  # maps are made of several softmaxes
    gradients = torch.autograd.grad(scores.softmax(-1)[0, target], kept.maps)
    pairs = ((a.detach(), g) for a, g in zip(kept.maps, gradients, strict=True))
    with torch.no_grad():
        taken = DESCRIBED[type(model)](model, Run(seen, outs, pairs))
    assert next(pairs, None) is None
    return build(name), taken


def vtranm(taken: Taken, gain: float = 1.0) -> T:
    """The read-out row of the product, times the first tokens' lengths."""
    whole = torch.diag(taken.lengths)
    for layer in taken.layers:
        update = layer.kept[True]
        if layer.attention:
            update = update + gain * layer.attention["vtranm"]
        if layer.feed_forward is not None:
            update = update + layer.feed_forward
        whole = update @ whole
    return taken.readout @ whole


def rollout(taken: Taken) -> T:
    """The read-out row of the product of ``rownorm(I + E_h[A])``."""
    whole = torch.eye(len(taken.lengths), dtype=torch.float64)
    for layer in taken.layers:
        update = layer.kept[False]
        if layer.attention:
            update = update + layer.attention["rollout"]
            update = update / update.sum(1, keepdim=True)
        whole = update @ whole
    return taken.readout @ whole


def attended(
    stream: T, maps: tuple[T, T], vectors: T, keys: dict[bool, T] | None = None, window: list[int] | None = None
) -> Layer:
    """Self-attention ``(H, n, keys)`` with vectors ``(H, keys, d)``; ``keys`` says what tokens they are made of."""
    identity, (attention, gradient) = torch.eye(len(stream), dtype=torch.float64), maps
    keys = {True: identity, False: identity} if keys is None else keys
    own, whole = keys[False] @ stream, torch.zeros_like(attention[0])
    for head, (a, g) in enumerate(zip(attention, gradient, strict=True)):
        weights = measure(own, vectors[head], BOTH, window or [0] * len(own))
        whole += g.clamp(min=0) * a * weights[None] / len(attention)
    matrices = {"vtranm": whole @ keys[True], "rollout": attention.mean(0) @ keys[False]}
    return Layer({True: identity, False: identity}, matrices)


def added(stream: T, output: T) -> Layer:
    """A feed-forward layer."""
    identity = torch.eye(len(stream), dtype=torch.float64)
    return Layer({True: identity, False: identity}, {}, torch.diag(measure(stream, output, BOTH, [0] * len(stream))))


def head_vectors(read: T, weight: T, bias: T | None, project: T, heads: int) -> T:
    """``(W_V x + b_V) W_H`` of every head and token: ``(H, n, d)``."""
    size = len(weight) // heads
    vectors = torch.zeros(heads, len(read), len(project), dtype=read.dtype)
    for h, j in itertools.product(range(heads), range(len(read))):
        part = slice(h * size, (h + 1) * size)
        vectors[h, j] = project[:, part] @ (weight[part] @ read[j] + (0 if bias is None else bias[part]))
    return vectors


def convolved(conv: nn.Conv2d, norm: Any, old: T, new: T) -> dict[bool, T]:
    """A convolution of ``(rows, columns, d)``: each new token's shares of the old ones, by length and equal."""
    rows, columns = old.shape[:2]
    shares = {way: torch.zeros(new.shape[0] * new.shape[1], rows * columns, dtype=old.dtype) for way in (True, False)}
    step, pad, per_group = conv.stride[0], before(conv), conv.in_channels // conv.groups
    for y, x in itertools.product(range(new.shape[0]), range(new.shape[1])):
        found: dict[int, T] = {}
        for i, j in itertools.product(range(conv.kernel_size[0]), range(conv.kernel_size[1])):
            row, column = y * step + i - pad, x * step + j - pad
            if not (0 <= row < rows and 0 <= column < columns):
                continue
            part = torch.zeros(conv.out_channels, dtype=old.dtype)
            for out in range(conv.out_channels):
                first = out // (conv.out_channels // conv.groups) * per_group
                part[out] = conv.weight[out, :, i, j] @ old[row, column, first : first + per_group]
            found[row * columns + column] = part
        whole = sum(found.values()) + (0 if conv.bias is None else conv.bias)
        rebuilt = (
            whole if norm is None else nn.functional.layer_norm(whole, whole.shape, norm.weight, norm.bias, norm.eps)
        )
        assert (rebuilt - new[y, x]).abs().max() < 1e-12 * rebuilt.abs().max()
        lengths = {place: float(linear_part(norm, part).norm()) for place, part in found.items()}
        for place, length in lengths.items():
            shares[True][y * new.shape[1] + x, place] = length / sum(lengths.values())
            shares[False][y * new.shape[1] + x, place] = 1 / len(lengths)
    return shares


def before(window: Any) -> int:
    """The padding above and to the left, for grids of even size; TensorFlow's puts the odd rest at the end."""
    if "Same" in type(window).__name__:
        return (to_2tuple(window.kernel_size)[0] - to_2tuple(window.stride)[0]) // 2
    return to_2tuple(window.padding)[0]


def maximum(pool: Any, old: T, new: T) -> dict[bool, T]:
    """As `convolved`, of a maximum: each channel is what the winner contributes."""
    rows, columns = old.shape[:2]
    shares = {way: torch.zeros(new.shape[0] * new.shape[1], rows * columns, dtype=old.dtype) for way in (True, False)}
    size, step, pad = to_2tuple(pool.kernel_size)[0], to_2tuple(pool.stride)[0], before(pool)
    for y, x in itertools.product(range(new.shape[0]), range(new.shape[1])):
        spots = [(y * step + i - pad, x * step + j - pad) for i, j in itertools.product(range(size), range(size))]
        spots = [(row, column) for row, column in spots if 0 <= row < rows and 0 <= column < columns]
        won = {place: torch.zeros_like(old[0, 0]) for place in spots}
        for channel in range(old.shape[2]):
            best = max(spots, key=lambda place: float(old[(*place, channel)]))
            won[best][channel] = old[(*best, channel)]
        assert torch.equal(sum(won.values()), new[y, x])
        lengths = {place: float(part.norm()) for place, part in won.items()}
        for (row, column), length in lengths.items():
            shares[True][y * new.shape[1] + x, row * columns + column] = length / sum(lengths.values())
            shares[False][y * new.shape[1] + x, row * columns + column] = 1 / len(spots)
    return shares


def mean_of(tokens: int) -> T:
    """The read-out of average pooling."""
    return torch.full((tokens,), 1 / tokens, dtype=torch.float64)


def with_reduced_keys(block: Any, run: Run, grid: tuple[int, int]) -> Layer:
    """Keys are made by ``sr`` and ``norm`` of the normalised tokens."""
    attn, stream, read, keys = block.attn, run.seen[block.norm1][0], run.outs[block.norm1][0], None
    if attn.sr is not None:
        made = run.outs[attn.norm][0].reshape(*run.outs[attn.sr].shape[2:], -1)
        keys = convolved(attn.sr, attn.norm, read.reshape(*grid, -1), made)
    weight, bias = attn.kv.weight[attn.dim :], attn.kv.bias[attn.dim :]
    vectors = head_vectors(run.seen[attn.kv][0], weight, bias, attn.proj.weight, attn.num_heads)
    return attended(stream, run.map(), vectors, keys)


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


def plain_attention(attn: Any, stream: T, read: T, maps: tuple[T, T], where: Any = None) -> Layer:
    """Self-attention with one projection for queries, keys and values."""
    third = len(attn.qkv.weight) // 3
    bias = None if attn.qkv.bias is None else attn.qkv.bias[2 * third :]
    vectors = head_vectors(read, attn.qkv.weight[2 * third :], bias, attn.proj.weight, attn.num_heads)
    return attended(stream, maps, vectors, window=None if where is None else [window for window, _ in where])


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


def dense(maps: tuple[T, T], where: list[tuple[int, int]]) -> tuple[T, T]:
    """Maps of windows ``(windows, H, n, n)`` as maps of all tokens ``(H, tokens, tokens)``."""
    whole = tuple(torch.zeros(maps[0].shape[1], len(where), len(where), dtype=torch.float64) for _ in maps)
    for i, j in itertools.product(range(len(where)), range(len(where))):
        if where[i][0] == where[j][0]:
            for one, windows in zip(whole, maps, strict=True):
                one[:, i, j] = windows[where[i][0], :, where[i][1], where[j][1]]
    return whole[0], whole[1]


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


def flat(x: T) -> T:
    """Tokens ``(n, d)`` of a feature map ``(1, d, rows, columns)``, row by row."""
    return x[0].flatten(1).T


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


def tokens_of(x: T, first: bool) -> T:
    """Tokens of a feature map with the channels first or last."""
    return flat(x) if first else x[0].flatten(0, 1)


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


def with_batch_norm(module: Any) -> nn.Conv2d:
    """A convolution that includes the batch norm after it."""
    conv, norm = module.conv, module.bn
    scale = norm.weight / (norm.running_var + norm.eps) ** 0.5
    fused = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, groups=conv.groups
    ).double()
    for channel in range(conv.out_channels):
        fused.weight[channel] = conv.weight[channel] * scale[channel]
        fused.bias[channel] = norm.bias[channel] - norm.running_mean[channel] * scale[channel]
    return fused


@describes(TinyVit)
def tiny_vit(model: Any, run: Run) -> Taken:
    """Depthwise convolutions stand between the layers, not beside them."""
    layers = []

    def convolution(module: Any) -> None:
        old, new = (x[0].permute(1, 2, 0) for x in (run.seen[module], run.outs[module]))
        layers.append(Layer(convolved(with_batch_norm(module), None, old, new)))

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
        own = in_image(run.outs[block.proj], old) if block.do_expand else own
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
            layers[-1].kept = maximum(pool, cells, pool(cells.permute(2, 0, 1)).permute(1, 2, 0))
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
