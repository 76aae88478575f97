"""The composition of a branch's steps: an affine map, once the statistics of its norms are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from timm.layers import RmsNorm
from timm.layers.norm import RmsNormFp32
from torch import nn

from captum_astro.functional import gradient_rules
from captum_astro.functional.attention import widen
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.structure import Linear, Measured, Modulated, Norm, Scale, Step

Statistics = tuple["torch.Tensor | Measured", ...]


@dataclass
class AffineMap:
    """The composition of the steps after a tensor, with the statistics of norms held constant.

    ``y_i = query_scale_i * (x_i matrix) + constant_i``

    Attributes:
        matrix: ``(d_in, d)``, or ``(B, d_in, d)`` if it depends on the sample, or None for the identity.
        query_scale: ``(B, 1 or H, n)``, or None for 1.
        constant: Broadcasts to ``(B, n, d)``, or None for 0.
    """

    matrix: torch.Tensor | None = None
    query_scale: torch.Tensor | None = None
    constant: torch.Tensor | None = None


def compose(steps: tuple[Step, ...], statistics: Sequence[torch.Tensor | Measured], like: torch.Tensor) -> AffineMap:
    """Compose a branch's steps into one affine map.

    Args:
        steps: The steps in order.
        statistics: The statistics of those steps that have some: ``1 / sigma`` of a norm, ``(B, n)``, or ``(B, H, n)``
            for a per-head norm; the effect of a modulated layer.
        like: The input values ``(B, H, n, d_v)``; determine heads, width, device and dtype.
    """
    out = AffineMap()
    heads, width = like.shape[1], like.shape[3]
    size = heads * width
    remaining = iter(statistics)
    for step in steps:
        if isinstance(step, Scale):
            factor = step.factor if isinstance(step.factor, float | int) else widen(step.factor.detach())
            out.matrix = _identity(out, size, like) * factor
            out.constant = None if out.constant is None else out.constant * factor
        elif isinstance(step, Linear):
            _compose_linear(out, step.weight, step.bias)
        else:
            found = next(remaining)
            if isinstance(step, Modulated):
                assert isinstance(found, Measured)
                _compose_modulated(out, step, found, _identity(out, size, like))
            else:
                assert isinstance(found, torch.Tensor)
                _compose_norm(out, step, found, _identity(out, size, like), heads)
    return out


def _compose_linear(out: AffineMap, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    weight = widen(weight.detach())
    out.matrix = weight.T if out.matrix is None else out.matrix @ weight.T
    out.constant = None if out.constant is None else out.constant @ weight.T
    if bias is not None:
        bias = widen(bias.detach())
        out.constant = bias if out.constant is None else out.constant + bias


def _compose_modulated(out: AffineMap, step: Modulated, found: Measured, matrix: torch.Tensor) -> None:
    out.matrix = matrix * found.factors[:, None]
    out.constant = None if out.constant is None else out.constant * found.factors[:, None]
    _compose_linear(out, step.module.weight, step.module.bias)
    if out.constant is not None:
        out.constant = out.constant * found.scale[..., None]
    if found.shift is not None:
        shift = found.shift[..., None].expand(-1, -1, out.matrix.shape[-1])
        out.constant = shift if out.constant is None else out.constant + shift
    scale = found.scale[:, None]
    out.query_scale = scale if out.query_scale is None else out.query_scale * scale


def _compose_norm(out: AffineMap, step: Norm, scale: torch.Tensor, matrix: torch.Tensor, heads: int) -> None:
    weight, bias = getattr(step.module, "weight", None), getattr(step.module, "bias", None)
    if step.per_head and out.constant is not None:
        raise UnsupportedModelError("A per-head norm after a step with a bias is not supported.")
    if centres(step.module):
        shape = matrix.shape
        parts = matrix.reshape(shape[0], heads, -1) if step.per_head else matrix
        matrix = (parts - parts.mean(-1, keepdim=True)).reshape(shape)
        if out.constant is not None:
            out.constant = out.constant - out.constant.mean(-1, keepdim=True)
    if weight is not None:
        factor = widen(weight.detach())
        factor = factor.repeat(heads) if step.per_head else factor
        matrix = matrix * factor
        out.constant = None if out.constant is None else out.constant * factor
    per_query = scale if step.per_head else scale[:, None]
    if out.constant is not None:
        out.constant = out.constant * scale[..., None]
    if bias is not None:
        shift = widen(bias.detach())
        shift = shift.repeat(heads) if step.per_head else shift
        out.constant = shift if out.constant is None else out.constant + shift
    out.matrix = matrix
    out.query_scale = per_query if out.query_scale is None else out.query_scale * per_query


def _identity(out: AffineMap, size: int, like: torch.Tensor) -> torch.Tensor:
    return torch.eye(size, device=like.device, dtype=widen(like).dtype) if out.matrix is None else out.matrix


def centres(norm: nn.Module) -> bool:
    """Whether a norm subtracts the mean.

    Raises:
        UnsupportedModelError: If it is neither a layer norm nor an RMS norm over the last dimension.
    """
    if isinstance(norm, nn.LayerNorm) and len(norm.normalized_shape) == 1:
        return True
    if isinstance(norm, nn.RMSNorm | RmsNorm | RmsNormFp32):
        return False
    raise UnsupportedModelError(
        f"{type(norm).__name__} is used between the heads' outputs and the residual stream, where only LayerNorm and "
        f"RMSNorm over the channels are supported."
    )


def inverse_deviation(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """``1 / sigma``, by which a norm multiplies each token of its input (shape without the last dim)."""
    return gradient_rules.inverse_deviation(x, centres(norm), getattr(norm, "eps", None))
