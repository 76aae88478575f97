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
from captum_astro.layouts.steps import Activation, Linear, Measured, Modulated, Norm, Scale, Step

Statistics = tuple["torch.Tensor | Measured", ...]


@dataclass
class AffineMap:
    """The composition of the steps after a tensor, with the statistics of norms held constant.

    ``y_i = query_scale_i * ((factors_i * x_i) matrix) + constant_i``

    Attributes:
        matrix: ``(d_in, d)``, or ``(B, d_in, d)`` if it depends on the sample, or None for the identity.
        query_scale: ``(B, 1 or H, n)``, or None for 1.
        constant: Broadcasts to ``(B, n, d)``, or None for 0.
        factors: Those of an activation, ``(B, n, d_in)``, or None for 1.
    """

    matrix: torch.Tensor | None = None
    query_scale: torch.Tensor | None = None
    constant: torch.Tensor | None = None
    factors: torch.Tensor | None = None


def compose(
    steps: tuple[Step, ...],
    statistics: Sequence[torch.Tensor | Measured],
    like: torch.Tensor,
    heads: int | None = None,
) -> AffineMap:
    """Compose a branch's steps into one affine map.

    Args:
        steps: The steps in order.
        statistics: The statistics of those steps that have some: ``1 / sigma`` of a norm, ``(B, n)``, or ``(B, H, n)``
            for a per-head norm; the effect of a modulated layer; the factors of an activation, ``(B, n, d_in)``.
        like: The input values ``(B, H, n, d_v)``; determine heads, width, device and dtype.
        heads: The number of heads, if it is another.
    """
    out = AffineMap()
    heads, size = heads or like.shape[1], like.shape[1] * like.shape[3]
    remaining = iter(statistics)
    if steps and isinstance(activation := steps[0], Activation):
        factors = next(remaining)
        assert isinstance(factors, torch.Tensor)
        steps = steps[1:]
        out.factors = factors if activation.scale is None else factors * widen(activation.scale.detach())
        out.constant = None if activation.shift is None else factors * widen(activation.shift.detach())
    first = next((i for i, step in enumerate(steps) if isinstance(step, Linear | Modulated)), 0)
    leading = steps[:first]  # applied to the rows of the first weight: a product with the identity would be slow
    for number, step in enumerate(steps):
        if number >= first and out.matrix is None and not isinstance(step, Linear | Modulated):
            out.matrix = torch.eye(size, device=like.device, dtype=widen(like).dtype)
        if isinstance(step, Scale):
            factor = _factor(step)
            out.matrix = None if out.matrix is None else out.matrix * factor
            out.constant = None if out.constant is None else out.constant * factor
        elif isinstance(step, Linear):
            _compose_linear(out, step, leading, heads)
        else:
            found = next(remaining)
            if isinstance(step, Modulated):
                assert isinstance(found, Measured)
                _compose_modulated(out, step, found, leading, heads)
            else:
                assert isinstance(found, torch.Tensor)
                assert isinstance(step, Norm)
                _compose_norm(out, step, found, heads)
    return out


def _factor(step: Scale) -> torch.Tensor | float:
    return step.factor if isinstance(step.factor, float | int) else widen(step.factor.detach())


def _after_leading(matrix: torch.Tensor, leading: tuple[Step, ...], heads: int) -> torch.Tensor:
    """A matrix ``(..., d_in, d)`` preceded by scales and norms without their statistics, which act on its rows."""
    for step in reversed(leading):
        weight = _factor(step) if isinstance(step, Scale) else getattr(_norm(step), "weight", None)
        if isinstance(weight, torch.Tensor):
            weight = widen(weight.detach())
            weight = (weight.repeat(heads) if isinstance(step, Norm) and step.per_head else weight)[:, None]
        matrix = matrix if weight is None else matrix * weight
        if isinstance(step, Norm) and centres(step.module):
            parts = matrix.unflatten(-2, (heads if step.per_head else 1, -1))
            matrix = (parts - parts.mean(-2, keepdim=True)).flatten(-3, -2)
    return matrix


def _norm(step: Step) -> nn.Module:
    assert isinstance(step, Norm)
    return step.module


def _compose_linear(out: AffineMap, step: Linear, leading: tuple[Step, ...], heads: int) -> None:
    weight = widen(step.weight.detach()).T
    out.matrix = _after_leading(weight, leading, heads) if out.matrix is None else out.matrix @ weight
    out.constant = None if out.constant is None else out.constant @ weight
    if step.bias is not None:
        bias = widen(step.bias.detach())
        out.constant = bias if out.constant is None else out.constant + bias


def _compose_modulated(out: AffineMap, step: Modulated, found: Measured, leading: tuple[Step, ...], heads: int) -> None:
    factors = found.factors
    out.constant = None if out.constant is None else out.constant * factors[:, None]
    if out.matrix is not None:
        out.matrix = out.matrix * factors[:, None]
        _compose_linear(out, Linear(step.module.weight, step.module.bias), (), heads)
    else:
        matrix = _after_leading(factors[..., None] * widen(step.module.weight.detach()).T, leading, heads)
        _compose_linear(out, Linear(step.module.weight, step.module.bias), (), heads)
        out.matrix = matrix
    if out.constant is not None:
        out.constant = out.constant * found.scale[..., None]
    if found.shift is not None:
        shift = found.shift[..., None].expand(-1, -1, out.matrix.shape[-1])
        out.constant = shift if out.constant is None else out.constant + shift
    scale = found.scale[:, None]
    out.query_scale = scale if out.query_scale is None else out.query_scale * scale


def _compose_norm(out: AffineMap, step: Norm, scale: torch.Tensor, heads: int) -> None:
    weight, bias = getattr(step.module, "weight", None), getattr(step.module, "bias", None)
    if step.per_head and out.constant is not None:
        raise UnsupportedModelError("A per-head norm after a step with a bias is not supported.")
    matrix = out.matrix  # None while the norm leads, see `_after_leading`
    if centres(step.module):
        if matrix is not None:
            parts = matrix.unflatten(-1, (heads if step.per_head else 1, -1))
            matrix = (parts - parts.mean(-1, keepdim=True)).flatten(-2)
        if out.constant is not None:
            out.constant = out.constant - out.constant.mean(-1, keepdim=True)
    if weight is not None:
        factor = widen(weight.detach())
        factor = factor.repeat(heads) if step.per_head else factor
        matrix = None if matrix is None else matrix * factor
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


def activation_factors(activation: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The factors ``f(x) / x`` by which an activation multiplies its input; the slope at 0 where that is 0."""
    x = torch.where(x == 0, torch.finfo(x.dtype).eps, x)
    found: torch.Tensor = activation.forward(x.clone()) / x  # no hooks; it may work in place
    return found


def inverse_deviation(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """``1 / sigma``, by which a norm multiplies each token of its input (shape without the last dim)."""
    return gradient_rules.inverse_deviation(x, centres(norm), getattr(norm, "eps", None))
