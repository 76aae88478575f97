"""Reference implementation for hierarchical models, with loops, in float64, one image at a time.

It uses nothing from the package. Every layer becomes an explicit matrix over all tokens of its grid: windowed attention
is block-diagonal, found by the coordinates of each token, and a merging is a matrix from the old tokens to the new
ones. The matrices of the whole network are multiplied, from the first layer to the last. The vectors are verified at
the same time: each layer's output is reconstructed from them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import PatchMerging as PatchMergingV2
from torch import nn
from torch.overrides import TorchFunctionMode

from tests import twin_rules
from tests.families import build, images

T = torch.Tensor
Entry = Callable[[T, T], T]


class KeepSoftmax(TorchFunctionMode):
    """Stores every attention map that depends on the image, however the softmax is called."""

    def __init__(self) -> None:
        super().__init__()
        self.maps: list[T] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (torch.Tensor.softmax, torch.softmax, torch.nn.functional.softmax) and out.requires_grad:
            self.maps.append(out)
        return out


@dataclass
class Attended:
    """Attention: over all tokens of the grid, ``(H, n, n)``, with the gradient and the vectors ``(H, n, d)``."""

    block: int
    stream: T
    attention: T
    gradient: T
    vectors: dict[bool, T]
    scale: T  # 1 / sigma of each query, (n,)
    window: list[int]  # of each token


@dataclass
class Added:
    """A feed-forward layer."""

    block: int
    stream: T
    added: T


@dataclass
class Merged:
    """A merging: which old tokens each new one consists of, and the length of each contribution."""

    sources: list[list[int]]
    lengths: list[list[float]]
    old: int


@dataclass
class Taken:
    """The record of one image's pass, in the order of the layers."""

    steps: list[Attended | Added | Merged] = field(default_factory=list)
    lengths: T = field(default_factory=lambda: torch.empty(0))  # of the first stage's tokens
    activations: list[T] = field(default_factory=list)  # token . dy/dtoken at each block's output
    grid: tuple[int, int] = (0, 0)
    error: float = 0.0  # error of the reconstruction, relative to what the layers add
    logits: T = field(default_factory=lambda: torch.empty(0))
    padded: bool = False  # whether any window or any merging was


def stages_of(model: Any) -> Any:
    """The parts of a model that work at one resolution each."""
    return model.layers if hasattr(model, "layers") else model.stages


def blocks_of(model: Any) -> list[Any]:
    """All blocks in order."""
    return [block for stage in stages_of(model) for block in stage.blocks]


def take(model: Any, image: T, target: int, output: str) -> Taken:
    """Run one image ``(1, 3, H, W)`` with all attention explicit."""
    seen: dict[nn.Module, T] = {}
    outs: dict[nn.Module, T] = {}

    def keep(module: nn.Module, arguments: Any, out: Any) -> None:
        seen[module], outs[module] = arguments[0], out

    handles = [module.register_forward_hook(keep) for module in model.modules()]
    fused = [module for module in model.modules() if hasattr(module, "fused_attn")]
    flags = [module.fused_attn for module in fused]
    for module in fused:
        module.fused_attn = False
    try:
        with KeepSoftmax() as kept:
            scores = model(image.clone().requires_grad_(True))
    finally:
        for handle in handles:
            handle.remove()
        for module, flag in zip(fused, flags, strict=True):
            module.fused_attn = flag
    blocks = blocks_of(model)
    assert len(kept.maps) == len(blocks)
    score = scores.softmax(-1)[0, target] if output == "probability" else scores[0, target]
    gradients = torch.autograd.grad(score, [*kept.maps, *(outs[block] for block in blocks)])
    taken = Taken(logits=scores[0].detach())
    with torch.no_grad():
        first = seen[blocks[0]][0]
        taken.grid, taken.lengths = (first.shape[0], first.shape[1]), first.flatten(0, 1).norm(dim=-1)
        number = 0
        for stage in stages_of(model):
            if not isinstance(stage.downsample, nn.Identity):
                taken.steps.append(merged(taken, stage.downsample, seen, outs))
            for block in stage.blocks:
                maps = kept.maps[number].detach(), gradients[number]
                taken.steps += block_steps(taken, block, number, maps, seen, outs)
                token, slope = outs[block][0].flatten(0, 1), gradients[len(blocks) + number][0].flatten(0, 1)
                taken.activations.append(torch.stack([t @ s for t, s in zip(token, slope, strict=True)]))
                number += 1
    return taken


def of_early(name: str, averaged: bool, target: int = 3) -> dict[int, T]:
    """For each block that the head can read, the gradient ``(H, n, n)`` of the score of its own tokens at its map."""
    model, outs = build(name), {}
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    for block in blocks_of(model):
        block.register_forward_hook(lambda m, a, o: outs.__setitem__(m, o))
    with KeepSoftmax() as kept:
        model(images(name, 1).requires_grad_(True))
    found, final = {}, outs[blocks_of(model)[-1]]
    for number, block in enumerate(blocks_of(model)):
        tokens = outs[block]
        if tokens.shape != final.shape:
            continue
        read = tokens.mean((1, 2), keepdim=True).expand_as(tokens) if averaged else tokens
        normed = model.norm(read) if hasattr(model, "norm") else read.permute(0, 3, 1, 2)  # v2-CR's head
        score = model.forward_head(normed)[0, target]
        (gradient,) = torch.autograd.grad(score, kept.maps[number], retain_graph=True)
        found[number] = whole_map(block, *tokens.shape[1:3], gradient)
    return found


def whole_map(block: Any, rows: int, columns: int, windows: T) -> T:
    """The maps of windows ``(windows, H, N, N)`` as one over all tokens, ``(H, n, n)``."""
    where = places(rows, columns, block.window_size, block.shift_size)
    whole = torch.zeros(windows.shape[1], len(where), len(where), dtype=windows.dtype)
    for i, j in itertools.product(range(len(where)), range(len(where))):
        if where[i][0] == where[j][0]:
            whole[:, i, j] = windows[where[i][0], :, where[i][1], where[j][1]]
    return whole


def places(rows: int, columns: int, window: Any, shift: Any) -> list[tuple[int, int]]:
    """Of each token, row by row: its window, and its place there."""
    across = -(-columns // window[1])
    found = []
    for y, x in itertools.product(range(rows), range(columns)):
        up, left = (y - shift[0]) % rows, (x - shift[1]) % columns
        number = (up // window[0]) * across + left // window[1]
        found.append((number, (up % window[0]) * window[1] + left % window[1]))
    return found


def block_steps(taken: Taken, block: Any, number: int, maps: Any, seen: Any, outs: Any) -> list[Attended | Added]:
    """Attention and feed-forward layer of one block."""
    pre, attn = isinstance(block, SwinTransformerBlock), block.attn
    rows, columns, width = outs[block].shape[1:]
    n, heads = rows * columns, attn.num_heads
    entering = (seen[block.norm1] if pre else seen[block])[0].reshape(n, width)
    read = outs[block.norm1][0].reshape(n, width) if pre else entering
    between = (seen[block.norm2] if pre else seen[block.mlp])[0].reshape(n, width)
    where = places(rows, columns, block.window_size, block.shift_size)
    attention, gradient = (whole_map(block, rows, columns, windows) for windows in maps)
    # of the three projections, side by side
    size = attn.qkv.weight.shape[0] // 3
    weight = attn.qkv.weight[2 * size :]
    bias = torch.zeros(size, dtype=read.dtype)
    if attn.qkv.bias is not None:
        bias = attn.qkv.bias[2 * size :]
    elif getattr(attn, "v_bias", None) is not None:
        bias = attn.v_bias
    norm = None if pre else block.norm1
    scale = torch.ones(n, dtype=read.dtype)
    if norm is not None:
        normalised = seen[norm][0].reshape(n, width)
        scale = torch.stack([1 / ((x - x.mean()).pow(2).mean() + norm.eps).sqrt() for x in normalised])
    per_head, vectors = size // heads, {}
    for include in (True, False):
        vectors[include] = torch.zeros(heads, n, width, dtype=read.dtype)
        for h, j in itertools.product(range(heads), range(n)):
            part = slice(h * per_head, (h + 1) * per_head)
            value = weight[part] @ read[j] + bias[part] if include else weight[part] @ entering[j]
            vector = attn.proj.weight[:, part] @ value
            vectors[include][h, j] = linear_part(norm, vector) if include else vector
    step = Attended(number, entering, attention, gradient, vectors, scale, [w for w, _ in where])
    taken.padded |= bool((attention.sum(-1) < 1 - 1e-12).any())
    # attention paid to padding, whose value is the bias only, is part of what the layer computes
    rebuilt = torch.zeros(n, width, dtype=read.dtype)
    for h, i in itertools.product(range(heads), range(n)):
        part = slice(h * per_head, (h + 1) * per_head)
        outside = linear_part(norm, attn.proj.weight[:, part] @ bias[part])
        rebuilt[i] += scale[i] * (attention[h, i] @ vectors[True][h] + (1 - attention[h, i].sum()) * outside)
    rebuilt += scale[:, None] * linear_part(norm, attn.proj.bias)
    rebuilt += 0 if norm is None else norm.bias
    compare(taken, between - entering, rebuilt)
    added = (outs[block.mlp] if pre else outs[block.norm2])[0].reshape(n, width)
    return [step, Added(number, between, added)]


def merged(taken: Taken, merging: Any, seen: Any, outs: Any) -> Merged:
    """A merging, source by source; upper left, lower left, upper right, lower right, as in the Swin paper's code."""
    old, new = seen[merging][0], outs[merging][0]
    rows, columns, width = old.shape
    sources, lengths = [], []
    for y, x in itertools.product(range(new.shape[0]), range(new.shape[1])):
        corners = [(2 * y, 2 * x), (2 * y + 1, 2 * x), (2 * y, 2 * x + 1), (2 * y + 1, 2 * x + 1)]
        parts = []
        for number, (row, column) in enumerate(corners):
            part = torch.zeros(4 * width, dtype=old.dtype)
            if row < rows and column < columns:
                part[number * width : (number + 1) * width] = old[row, column]
            parts.append(part)
        whole, weight, norm = sum(parts), merging.reduction.weight, merging.norm
        after = isinstance(merging, PatchMergingV2)
        normalised = weight @ whole if after else whole
        sigma = ((normalised - normalised.mean()).pow(2).mean() + norm.eps).sqrt()
        given = [
            (linear_part(norm, weight @ part) if after else weight @ linear_part(norm, part)) / sigma for part in parts
        ]
        compare(taken, new[y, x], sum(given) + (norm.bias if after else weight @ norm.bias))
        real = [k for k, (row, column) in enumerate(corners) if row < rows and column < columns]
        taken.padded |= len(real) < 4
        sources.append([corners[k][0] * columns + corners[k][1] for k in real])
        lengths.append([float(given[k].norm()) for k in real])
    return Merged(sources, lengths, rows * columns)


def compare(taken: Taken, found: T, rebuilt: T) -> None:
    """Note the largest error of all."""
    taken.error = max(taken.error, float((found - rebuilt).abs().max() / found.abs().max()))


def linear_part(norm: Any, x: T) -> T:
    """A layer norm of one vector without its division and bias."""
    return x if norm is None else (x - x.mean()) * norm.weight


@cache
def of_model(name: str, output: str, target: int = 3) -> tuple[Any, Taken]:
    """A tiny model and the record of one image's pass."""
    model = build(name)
    return model, take(model, images(name, 1), target, output)


def merge_matrix(step: Merged, by_length: bool) -> T:
    """The fraction of each new token's relevance that goes to each old one: ``(new, old)``, rows sum to 1."""
    matrix = torch.zeros(len(step.sources), step.old, dtype=torch.float64)
    for new, (sources, lengths) in enumerate(zip(step.sources, step.lengths, strict=True)):
        for source, length in zip(sources, lengths, strict=True):
            matrix[new, source] = length / sum(lengths) if by_length else 1 / len(sources)
    return matrix


def measure(stream: T, vectors: T, components: tuple[str, ...], window: list[int]) -> T:
    """``|E~_j| / |E_j| NECC(j)`` of one head; the softmax is over the tokens of j's window."""
    lengths, own = vectors.norm(dim=1).tolist(), stream.norm(dim=1).tolist()
    products = (vectors * stream).sum(1).tolist()
    exponentials = [math.exp(dot / (a * b)) for dot, a, b in zip(products, lengths, own, strict=True)]
    sums = dict.fromkeys(window, 0.0)
    for j, number in enumerate(window):
        sums[number] += exponentials[j]
    weights = []
    for j, number in enumerate(window):
        length = lengths[j] / own[j] if "length" in components else 1.0
        weights.append(length * exponentials[j] / sums[number] if "direction" in components else length)
    return torch.tensor(weights, dtype=stream.dtype)


def attention_map(step: Attended, components: tuple[str, ...], include_norm: bool) -> T:
    """``E_h[(dp/dA)^+ * A W]``, each query's row times its ``1 / sigma``."""
    total = torch.zeros_like(step.attention[0])
    for h in range(len(step.attention)):
        weights = measure(step.stream, step.vectors[include_norm][h], components, step.window)
        total += step.gradient[h].clamp(min=0) * step.attention[h] * weights[None, :] / len(step.attention)
    return total * step.scale[:, None] if include_norm else total


def product(taken: Taken, start: T, layer: Callable[[Any], T | None], by_length: bool) -> T:
    """``U_L ... U_2 U_1`` times a first matrix; ``layer`` gives the U of each layer, None for the identity."""
    whole = start
    for step in taken.steps:
        update = merge_matrix(step, by_length) if isinstance(step, Merged) else layer(step)
        whole = whole if update is None else update @ whole
    return whole


def mean_row(whole: T) -> T:
    """The read-out: the mean over the final tokens."""
    return whole.mean(0)


@torch.no_grad()
def vtranm(
    taken: Taken, *, aggregation: bool = True, components: tuple[str, ...] = ("length", "direction"),
    include_norm: bool = True, gain: float = 1.0, layers: tuple[int, ...] | None = None,
) -> T:  # fmt: skip
    """The whole map ``C`` ``(final tokens, first tokens)``; without aggregation, the last layer's alone."""
    if not aggregation:
        return last(taken, lambda step: attention_map(step, (), include_norm), layers)
    n = len(taken.lengths)
    start = torch.diag(taken.lengths) if "length" in components else torch.eye(n, dtype=torch.float64)

    def layer(step: Attended | Added) -> T | None:
        identity = torch.eye(len(step.stream), dtype=torch.float64)
        if layers is not None and step.block not in layers:
            return None
        if isinstance(step, Attended):
            return identity + gain * attention_map(step, components, include_norm)
        if not components:
            return None
        # a feed-forward layer has one head, and its softmax is over all tokens
        return identity + torch.diag(measure(step.stream, step.added, components, [0] * len(step.stream)))

    return product(taken, start, layer, "length" in components)


@torch.no_grad()
def chain(taken: Taken, entry: Entry, normalise: bool = False, layers: Any = None) -> T:
    """The read-out row of the product with ``U = I + E_h[f(A, dA)]``, its rows brought to sum 1 if asked."""

    def layer(step: Attended | Added) -> T | None:
        if isinstance(step, Added) or (layers is not None and step.block not in layers):
            return None
        update = torch.eye(len(step.stream), dtype=torch.float64) + mean_map(step, entry)
        return update / update.sum(1, keepdim=True) if normalise else update

    return mean_row(product(taken, torch.eye(len(taken.lengths), dtype=torch.float64), layer, False))


def mean_map(step: Attended, entry: Entry) -> T:
    """``E_h[f(A, dA)]``."""
    return sum(entry(a, g) for a, g in zip(step.attention, step.gradient, strict=True)) / len(step.attention)


def last(taken: Taken, update: Callable[[Attended], T], layers: Any = None) -> T:
    """The last attention layer's map alone, from the final tokens to the first grid by equal shares."""
    numbers = [step.block for step in taken.steps if isinstance(step, Attended)]
    chosen = max(numbers if layers is None else layers)
    start = torch.eye(len(taken.lengths), dtype=torch.float64)

    def layer(step: Attended | Added) -> T | None:
        return update(step) if isinstance(step, Attended) and step.block == chosen else None

    return product(taken, start, layer, False)


@torch.no_grad()
def attcat(taken: Taken) -> T:
    """The sum over the blocks of ``a_i CAT_i``, each carried to the first grid by equal shares."""
    total = torch.zeros(len(taken.lengths), dtype=torch.float64)
    down = torch.eye(len(taken.lengths), dtype=torch.float64)  # from the current grid to the first
    for step in taken.steps:
        if isinstance(step, Merged):
            down = merge_matrix(step, False) @ down
        if isinstance(step, Attended):
            heads, queries, _ = step.attention.shape
            received = sum(step.attention[h, i] for h, i in itertools.product(range(heads), range(queries)))
            total += (received / (heads * queries) * taken.activations[step.block]) @ down
    return total


@torch.no_grad()
def attention_grad_cam(taken: Taken, relu: bool = True) -> T:
    """The last layer, head by head, carried to the first grid by equal shares."""
    step = next(step for step in reversed(taken.steps) if isinstance(step, Attended))
    n = len(step.stream)
    cam = torch.zeros(n, dtype=torch.float64)
    for a, g in zip(step.attention, step.gradient, strict=True):
        slopes = sum(g[i] / n for i in range(n))
        cam += slopes.mean() * sum(a[i] / n for i in range(n)) / len(step.attention)
    cam = cam.clamp(min=0) if relu else cam
    # the merges that stand before it
    whole = torch.eye(len(taken.lengths), dtype=torch.float64)
    for merge in taken.steps[: taken.steps.index(step)]:
        whole = merge_matrix(merge, False) @ whole if isinstance(merge, Merged) else whole
    return cam @ whole


class WindowedTaylor(twin_rules.DeepTaylor):
    """The rules of z+ where attention has a batch of windows; ``maps`` keeps R_A ``(windows, H, N, N)``.

    One image is traced, so an add is one sample, however many windows it has.
    """

    def __call__(self, trace: twin_rules.Trace, node: Any, r: T) -> twin_rules.Parts:
        """What each argument of an operation gets of its relevance."""
        aten, args = twin_rules.aten, node.args
        if node.target is aten.softmax.int:
            self.maps.append(r)
            return [(args[0], r)]
        if node.target is aten.adaptive_avg_pool2d.default:
            x = trace.values[args[0]]
            return [(args[0], x * twin_rules.quotient(r, x.sum((2, 3), keepdim=True)))]
        if node.target is aten.scaled_dot_product_attention.default:
            q, k, v, bias = trace.given(node)[0][:4]
            scores = torch.stack([q[w] @ k[w].transpose(1, 2) / q.shape[-1] ** 0.5 for w in range(len(q))])
            ra, rv = self.product((scores + bias).softmax(-1), v, r)
            self.maps.append(ra)
            rq, rk = self.product(q, k.transpose(2, 3), ra)
            return list(zip(args[:3], (rq, rk.transpose(2, 3), rv), strict=True))
        return super().__call__(trace, node, r)


def traced(model: Any, image: T) -> tuple[twin_rules.Trace, Any]:
    """A model's operations on one image, and the one that outputs the tokens: attention is fused where possible."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):  # as the package runs it: a bias inside takes no share
            module.fused_attn = True
    trace = twin_rules.Trace(model, image, blocks_of(model)[0])
    whole = trace.values[trace.tokens]
    same = (n for n, v in trace.values.items() if isinstance(v, T) and v.shape == whole.shape and torch.equal(v, whole))
    return trace, next(same)  # later ones are copies inside a branch


@torch.no_grad()
def transformer_attribution(model: Any, taken: Taken, maps: list[T]) -> T:
    """The read-out row of the product with ``U = I + E_h[(dy/dA * R_A)^+]``.

    Args:
        model: The model.
        taken: Of the logit.
        maps: ``R_A`` of each layer, the last first.
    """
    relevance = maps[::-1]
    updates = {}
    for block, number in zip(blocks_of(model), range(len(relevance)), strict=True):
        step = next(s for s in taken.steps if isinstance(s, Attended) and s.block == number)
        rows, columns = block_grid(model, taken, number)
        where = places(rows, columns, block.window_size, block.shift_size)
        whole = torch.zeros_like(step.attention)
        for i, j in itertools.product(range(len(where)), range(len(where))):
            if where[i][0] == where[j][0]:
                whole[:, i, j] = relevance[number][where[i][0], :, where[i][1], where[j][1]]
        updates[number] = (whole * step.gradient).clamp(min=0).mean(0)

    def layer(step: Attended | Added) -> T | None:
        if isinstance(step, Added):
            return None
        return torch.eye(len(step.stream), dtype=torch.float64) + updates[step.block]

    return mean_row(product(taken, torch.eye(len(taken.lengths), dtype=torch.float64), layer, False))


def block_grid(model: Any, taken: Taken, number: int) -> tuple[int, int]:
    """Rows and columns of a block's tokens."""
    (rows, columns), passed = taken.grid, 0
    for index, stage in enumerate(stages_of(model)):
        if index:
            rows, columns = -(-rows // 2), -(-columns // 2)
        passed += len(stage.blocks)
        if number < passed:
            break
    return rows, columns
