"""Reference implementation for models whose tokens pass through convolutions, poolings or reduced keys.

With loops, in float64, one image at a time, and nothing from the package. Every layer becomes an explicit matrix from
its old tokens to its new ones, built from the model's own modules; the matrices are multiplied from the first layer to
the last. The vectors are verified at the same time: each change of resolution is reconstructed from them. The families
are in `twin_families`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from timm.layers import to_2tuple
from timm.models.cait import TalkingHeadAttn
from timm.models.convit import GPSA
from torch import nn

from tests.families import build, images
from tests.twin_windows import KeepSoftmax, linear_part, measure

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
    target: int

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
# what changes maps after their softmax: from the model and the outputs of its modules, which maps are meant instead
MIXED_MAPS: dict[type[nn.Module], Callable[[Any, dict[nn.Module, Any], list[T]], list[T]]] = {}


def describes(model: type[nn.Module]) -> Callable[[Describe], Describe]:
    """Use this function for a class of models."""

    def keep(describe: Describe) -> Describe:
        DESCRIBED[model] = describe
        return describe

    return keep


@cache
def of_model(name: str, target: int | tuple[int, ...]) -> tuple[Any, Taken]:
    """A tiny model, and the matrices of one image's pass, for the probability of a class."""
    place = (0, *(target if isinstance(target, tuple) else (target,)))
    model = build(name)
    seen: dict[nn.Module, Any] = {}
    outs: dict[nn.Module, Any] = {}

    def keep(module: nn.Module, arguments: Any, out: Any) -> None:
        seen[module], outs[module] = arguments[0] if arguments else None, out
        if isinstance(module, nn.BatchNorm2d) and out.requires_grad:
            out.register_hook(torch.Tensor.contiguous)  # PyTorch 2.14 errs where one image's gradient is transposed

    for module in model.modules():
        module.register_forward_hook(keep)
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    with KeepSoftmax() as kept:
        scores = model(images(name, 1).requires_grad_(True))
    mixing = [module for module in model.modules() if isinstance(module, TalkingHeadAttn | GPSA)]
    softmaxes = sum(2 if isinstance(module, GPSA) else 1 for module in mixing)
    kept.maps[:softmaxes] = [seen[module.attn_drop] for module in mixing]  # maps are made of several softmaxes
    if type(model) in MIXED_MAPS:
        kept.maps = MIXED_MAPS[type(model)](model, outs, kept.maps)
    gradients = torch.autograd.grad(scores.softmax(-1)[place], kept.maps)
    pairs = ((a.detach(), g) for a, g in zip(kept.maps, gradients, strict=True))
    with torch.no_grad():
        taken = DESCRIBED[type(model)](model, Run(seen, outs, pairs, target))
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


def gated_map(stream: T, maps: tuple[T, T], values: T, project: T, factors: T) -> T:
    """``E_h[(dp/dA)^+ * A W]`` where each query multiplies the channels that it gets by factors of its own.

    Values are ``(H, n, d_v)``, the projection ``(d, H * d_v)`` and the factors ``(q, H * d_v)``.
    """
    attention, gradient = maps
    whole, size = torch.zeros_like(attention[0]), values.shape[2]
    for h, i in itertools.product(range(len(attention)), range(attention.shape[1])):
        part = slice(h * size, (h + 1) * size)
        vectors = (values[h] * factors[i, part]) @ project[:, part].T
        whole[i] += gradient[h, i].clamp(min=0) * attention[h, i] * weighed(stream, vectors) / len(attention)
    return whole


def weighed(stream: T, vectors: T) -> T:
    """``|E~_j| / |E_j| NECC(j)``, of vectors that may be zero, or of another width."""
    lengths, own, cosines = vectors.norm(dim=1), stream.norm(dim=1), torch.zeros_like(stream[:, 0])
    for j in range(len(stream)) if vectors.shape[1] == stream.shape[1] else ():
        cosines[j] = vectors[j] @ stream[j] / (lengths[j] * own[j]) if lengths[j] > 0 else 0
    return lengths / own * cosines.exp() / cosines.exp().sum()


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


def plain_attention(attn: Any, stream: T, read: T, maps: tuple[T, T], where: Any = None) -> Layer:
    """Self-attention with one projection for queries, keys and values."""
    third = len(attn.qkv.weight) // 3
    bias = None if attn.qkv.bias is None else attn.qkv.bias[2 * third :]
    vectors = head_vectors(read, attn.qkv.weight[2 * third :], bias, attn.proj.weight, attn.num_heads)
    return attended(stream, maps, vectors, window=None if where is None else [window for window, _ in where])


def dense(maps: tuple[T, T], where: list[tuple[int, int]]) -> tuple[T, T]:
    """Maps of windows ``(windows, H, n, n)`` as maps of all tokens ``(H, tokens, tokens)``."""
    whole = tuple(torch.zeros(maps[0].shape[1], len(where), len(where), dtype=torch.float64) for _ in maps)
    for i, j in itertools.product(range(len(where)), range(len(where))):
        if where[i][0] == where[j][0]:
            for one, windows in zip(whole, maps, strict=True):
                one[:, i, j] = windows[where[i][0], :, where[i][1], where[j][1]]
    return whole[0], whole[1]


def flat(x: T) -> T:
    """Tokens ``(n, d)`` of a feature map ``(1, d, rows, columns)``, row by row."""
    return x[0].flatten(1).T


def tokens_of(x: T, first: bool) -> T:
    """Tokens of a feature map with the channels first or last."""
    return flat(x) if first else x[0].flatten(0, 1)


def normalised(module: Any) -> nn.Conv2d:
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
