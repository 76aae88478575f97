"""What one pass captured of each stage, in the form that the methods' maths takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from timm.layers import RmsNorm
from timm.layers.norm import RmsNormFp32
from torch import nn

from captum_astro.functional import gradient_rules
from captum_astro.functional.attention import Attention, widen
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.structure import (
    AttentionBranch,
    FeedForwardBranch,
    Linear,
    Measured,
    Modulated,
    Norm,
    Scale,
    Stage,
    Step,
)


@dataclass
class AffineMap:
    """What the steps after a tensor amount to, their norms' statistics taken as given.

    ``y_i = query_scale_i * (x_i matrix) + constant_i``

    Attributes:
        matrix: ``(d_in, d)``, or ``(B, d_in, d)`` where it depends on the sample, or None for the identity.
        query_scale: ``(B, 1 or H, n)``, or None for 1.
        constant: Broadcasts to ``(B, n, d)``, or None for 0.
    """

    matrix: torch.Tensor | None = None
    query_scale: torch.Tensor | None = None
    constant: torch.Tensor | None = None


@dataclass
class AttentionRecord:
    """One attention layer of one pass.

    Attributes:
        branch: Its description.
        stream: ``E``, the residual stream that it reads, ``(B, n, d)``.
        attention: Its maps and values.
        gradient: The explained output's gradient at the heads' outputs, ``(B, H, q, d_v)``; None in a pass without.
        statistics: Of the branch's steps that have some, in order: ``1 / sigma`` of a norm, what a modulated layer did.
        read: A few of the tokens that the value projection read, ``(B, 3, d)``, those of `spots`.
        values: What a modulated value projection did.
        first_key: Which token of the final stream is the first key; not 0 where a pooling head skips the prefix.
    """

    branch: AttentionBranch
    stream: torch.Tensor
    attention: Attention
    gradient: torch.Tensor | None = None
    statistics: list[torch.Tensor | Measured] = field(default_factory=list)
    first_key: int = 0
    read: torch.Tensor | None = None
    values: Measured | None = None

    def map_out(self) -> AffineMap:
        """From the concatenated heads' outputs to what is added to the residual stream."""
        return compose(self.branch.steps, self.statistics, self.attention.value)

    def per_head(self, matrix: torch.Tensor | None) -> torch.Tensor:
        """A matrix ``(heads * d_v, d)`` as ``(heads, d_v, d)``, with a batch before it or without."""
        heads, width = self.attention.value.shape[1], self.attention.value.shape[3]
        if matrix is None:
            matrix = torch.eye(heads * width, device=self.stream.device, dtype=widen(self.stream).dtype)
        return matrix.reshape(*matrix.shape[:-2], heads, width, -1)

    def as_heads(self, output: torch.Tensor) -> torch.Tensor:
        """The heads' outputs ``(B, H, q, d_v)``, cut further where the maps belong to single channels."""
        if output.shape[1] == self.attention.value.shape[1]:
            return output
        return output.transpose(-2, -1).flatten(1, 2)[..., None]

    def value_weight(self) -> torch.Tensor:
        """The value projection's weight, one part for each head of the maps, ``(H, d_v, d)``."""
        weight = widen(self.branch.value_weight().detach())
        return weight.reshape(self.attention.value.shape[1], self.attention.value.shape[3], -1)

    def transformed(self, include_norm: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Values, output map and query scale that give the vector each token adds.

        Args:
            include_norm: With the norms and biases, as the model adds it; or ``E W_V W_H`` alone, with LayerScale.

        Returns:
            Values ``(B, H, n, d_v)``, output map ``(H, d_v, d)`` or ``(B, H, d_v, d)``, query scale ``(B, 1 or H, q)``
            or None.
        """
        if include_norm:
            out = self.map_out()
            return self.attention.value, self.per_head(out.matrix), out.query_scale
        steps = tuple(step for step in self.branch.steps if not isinstance(step, Norm))
        stream = widen(self.stream)
        if self.values is not None:
            stream = stream * self.values.factors[:, None]
        weight = self.value_weight().to(stream)
        value = torch.einsum("bnd,hvd->bhnv", stream, weight)
        modulations = [found for found in self.statistics if isinstance(found, Measured)]
        return value, self.per_head(compose(steps, modulations, value).matrix), None


@dataclass
class FeedForwardRecord:
    """One feed-forward layer of one pass: it reads ``stream`` and adds ``output``, both ``(B, n, d)``."""

    branch: FeedForwardBranch
    stream: torch.Tensor
    output: torch.Tensor


@dataclass
class StageRecord:
    """One residual add of one pass: ``summed = stream + sum of the branches``, all ``(B, n, d)``.

    ``following`` is the next stage's stream: the sum, or a norm of it. ``following_gradient`` is the explained output's
    gradient there, in a pass that asks for it.
    """

    stage: Stage
    stream: torch.Tensor
    following: torch.Tensor
    branches: list[AttentionRecord | FeedForwardRecord]
    following_gradient: torch.Tensor | None = None
    summed: torch.Tensor | None = None


def spots(tokens: int) -> list[int]:
    """The tokens that are compared in every pass: the first, one in the middle and the last."""
    return [0, tokens // 2, tokens - 1]


def compose(steps: tuple[Step, ...], statistics: Sequence[torch.Tensor | Measured], like: torch.Tensor) -> AffineMap:
    """Multiply a branch's steps out.

    Args:
        steps: The steps in order.
        statistics: Of those that have some: ``1 / sigma`` of a norm, ``(B, n)``, or ``(B, H, n)`` for a norm of each
            head; what a modulated layer did.
        like: The values ``(B, H, n, d_v)`` that go in; gives heads, width, device and dtype.
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
        raise UnsupportedModelError("A norm of each head after a step with a bias is not supported.")
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
        f"{type(norm).__name__} stands between the heads' outputs and the residual stream, where only LayerNorm and "
        f"RMSNorm over the channels are supported."
    )


def inverse_deviation(norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """``1 / sigma``, which a norm multiplies each token of its input by: the input's shape without the last."""
    return gradient_rules.inverse_deviation(x, centres(norm), getattr(norm, "eps", None))
