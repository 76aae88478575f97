"""Relevance rules of deep Taylor decomposition: autograd functions whose backward pass propagates relevance.

Sources: Montavon et al., "Explaining NonLinear Classification Decisions with Deep Taylor Decomposition", Pattern
Recognition 2017 (z+ and z^B); Chefer, Gur, Wolf, "Transformer Interpretability Beyond Attention Visualization", CVPR
2021 (arXiv 2012.09838, residual adds, attention products). These methods may be covered by patents; see the
documentation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_astro.functional.attention import Attention, AttentionMap

_TINY = 1e-12
Product_ = Callable[[Tensor, Tensor], Tensor]


def divided(relevance: Tensor, total: Tensor) -> Tensor:
    """``R / Z``, 0 where Z is 0; a small Z keeps its sign."""
    safe = total.abs().clamp_(min=_TINY).copysign_(total)
    return (relevance / safe).masked_fill_(total == 0, 0)


def factors(needed: tuple[bool, ...]) -> int:
    """The number of factors that share the relevance; constants, such as a pooling head's latent query, get none."""
    return max(1, sum(needed))


class InputZB(torch.autograd.Function):
    """The layer that reads pixels, z^B: ``R_i = sum_j (x_i w - l w^+ - h w^-)_ij / sum_i' (...) R_j``.

    ``l`` and ``h`` are the smallest and the largest value of each image.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, apply: Callable[[Tensor, Tensor], Tensor], weight: Tensor, output: Tensor
    ) -> Tensor:
        """``output`` is the output of the operation, ``apply(x, weight)`` the operation without its bias."""
        ctx.save_for_backward(x, weight)
        ctx.product = apply
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        x, weight = ctx.saved_tensors
        shape = (-1, *[1] * (x.ndim - 1))
        low = x.flatten(1).amin(1).reshape(shape).expand_as(x)
        high = x.flatten(1).amax(1).reshape(shape).expand_as(x)
        inputs = [t.detach().clone().requires_grad_(True) for t in (x, low, high)]
        with torch.enable_grad():
            parts = [
                ctx.product(t, w)
                for t, w in zip(inputs, (weight, weight.clamp(min=0), weight.clamp(max=0)), strict=True)
            ]
        share = divided(relevance[0], (parts[0] - parts[1] - parts[2]).detach())
        back = torch.autograd.grad(parts, inputs, [share] * 3)
        return x * back[0] - low * back[1] - high * back[2], None, None, None


def kept(x: Tensor) -> Tensor:
    """A tensor as it is now: what it is a view of may be written to afterwards, as where biases are added to rows."""
    return x if x._base is None else x.clone()


class ResidualAdd(torch.autograd.Function):
    """``a + b``: ``R_a = a / (a + b) R``, with the share ``|sum R_a| / (|sum R_a| + |sum R_b|)`` of the image."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, images: int) -> Tensor:
        """The shapes must broadcast; the rows of the sum are the windows of the images, image by image."""
        ctx.save_for_backward(kept(a), kept(b))
        ctx.images = images
        return a + b

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        a, b = ctx.saved_tensors
        rows = len(relevance[0])
        images = ctx.images if rows % ctx.images == 0 else rows
        share = divided(relevance[0], a + b)
        parts = [a * share, b * share]
        sums = [part.reshape(images, -1).sum(1) for part in parts]
        total = relevance[0].reshape(images, -1).sum(1)
        sizes = [s.abs() for s in sums]
        out = []
        for part, own, size, like in zip(parts, sums, sizes, (a, b), strict=True):
            factor = divided(divided(size, sizes[0] + sizes[1]) * total, own).repeat_interleave(rows // images)
            scaled = part * factor.reshape(-1, *[1] * (part.ndim - 1))
            out.append(scaled.sum_to_size(like.shape))
        return *out, None


class Pooled(torch.autograd.Function):
    """A sum, a mean or an average pooling: ``R_i = sum_j x_i / (sum of j's window) R_j``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pool: Callable[[Tensor], Tensor]) -> Tensor:
        """``pool(x)`` is linear in x, with equal weights over a window."""
        ctx.save_for_backward(x)
        ctx.pool = pool
        return pool(x).clone()

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            leaf = x.detach().requires_grad_(True)
            output = ctx.pool(leaf)
        (back,) = torch.autograd.grad(output, leaf, divided(relevance[0], output.detach()))
        return x * back, None


class Unchanged(torch.autograd.Function):
    """Norms, activations, LayerScale, softmax: relevance is passed on unchanged."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, output: Tensor) -> Tensor:
        """``output`` is the output of the operation, of x's shape."""
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        return relevance[0], None


class Product(torch.autograd.Function):
    """A product of two, such as of matrices: each activation gets half, ``R_a = a (R / (a b)) b^T / 2``.

    With a constant, all of it.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, product: Product_ = torch.matmul) -> Tensor:
        """``product(a, b)`` is linear in each."""
        output = product(a, b)
        ctx.save_for_backward(a, b, output)
        ctx.product = product
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        a, b, output = ctx.saved_tensors
        moving = ctx.needs_input_grad[:2]
        share = divided(relevance[0], output) / factors(moving)
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_(need) for x, need in zip((a, b), moving, strict=True)]
            wanted = [x for x, need in zip(leaves, moving, strict=True) if need]
            found = iter(torch.autograd.grad(ctx.product(*leaves), wanted, share))
        return *(x * next(found) if need else None for x, need in zip((a, b), moving, strict=True)), None


class Gate(torch.autograd.Function):
    """An elementwise product of two activations: each factor gets half."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        """The shapes must broadcast."""
        ctx.shapes = a.shape, b.shape
        return a * b

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        return tuple((relevance[0] / 2).sum_to_size(shape) for shape in ctx.shapes)


class FusedAttention(torch.autograd.Function):
    """Fused attention by the rules of `Product` and `Unchanged`, a few rows of the map at a time.

    ``R_A = A (R / O) V^T / 2``, ``R_V = V A^T (R / O) / 2``, and with ``Z = Q K^T``: ``R_Q = Q (R_A / Z) K / 2``, and
    the same for K.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, output: Tensor, maps: AttentionMap) -> Tensor:
        """``output`` is the output of the operation, and ``maps`` its attention."""
        ctx.save_for_backward(query, key, value, output)
        ctx.maps = maps
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        query, key, value, output = ctx.saved_tensors
        share = divided(relevance[0], output) / 2
        out_q, out_k, out_v = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for group, part in Attention((ctx.maps,), (1.0,), value).groups():
            q, k, v, shares = (x[group].contiguous() for x in (query, key, value, share))
            for queries, probabilities in part.chunks():
                of_map = (shares[:, :, queries] @ v.transpose(-2, -1)).mul_(probabilities)
                out_v[group] += probabilities.transpose(-2, -1) @ shares[:, :, queries]
                scores = q[:, :, queries] @ k.transpose(-2, -1)
                of_scores = divided(of_map, scores) / factors(ctx.needs_input_grad[:2])
                out_q[group][:, :, queries] = q[:, :, queries] * (of_scores @ k)
                out_k[group] += of_scores.transpose(-2, -1) @ q[:, :, queries]
        return out_q, out_k * key, out_v * value, None, None
