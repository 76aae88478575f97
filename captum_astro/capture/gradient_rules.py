"""Rules that modify gradients, so that input times gradient is the relevance: Conservative LRP and AttnLRP."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import RmsNorm2d
from timm.layers.norm import RmsNorm2dFp32
from torch import nn

from captum_astro.capture.operations import (
    ACTIVATION,
    ADD,
    MATMUL,
    MOVES,
    MUL,
    NORM,
    SATURATING,
    SOFTMAX,
    SUB,
    both_need_grad,
    flattened,
    is_composed,
    needs_grad,
    no_rule,
)
from captum_astro.capture.rules_mode import Rules
from captum_astro.functional import gradient_rules as rules
from captum_astro.functional.operations import ATTENTION, RULED, AttentionOperation
from captum_astro.layouts.errors import UnsupportedModelError


class _GradientRules(Rules):
    """Gradient rules: norms hold their deviation constant, products of two activations are split in halves."""

    def composed(self, module: nn.Module, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The LN rule for RMS norms, the method's own rule for activations."""
        if is_composed(module):
            return self.activation(x, output)
        dim = 1 if isinstance(module, RmsNorm2d | RmsNorm2dFp32) else -1
        moved = x.movedim(dim, -1)
        norm: Any = module
        scale = rules.inverse_deviation(moved.detach(), False, norm.eps)
        return rules.frozen_norm(moved, scale, False, norm.weight, None).movedim(-1, dim)

    def operation(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The rule of each operation."""
        if func in ATTENTION:
            return self.attention(ATTENTION[func], *args, **kwargs)
        if func in SOFTMAX:
            return self.softmax(func(*args, **kwargs))
        if func in NORM:
            return _frozen(func, *args, **kwargs)
        if func in RULED:
            return RULED[func].gradient(*args, **kwargs)
        if func in ACTIVATION:
            return self.activation(args[0], func(args[0].clone(), *args[1:], **kwargs))  # some act in place
        if func in SATURATING:
            return self.saturating(func, func(*args, **kwargs))
        if func in (*MUL, *MATMUL) and both_need_grad(args):
            return func(*(rules.ScaledGradient.apply(x, 0.5) for x in args), **kwargs)
        if func is torch.einsum and both_need_grad(args[1:]):
            return func(args[0], *(rules.ScaledGradient.apply(x, 0.5) for x in args[1:]), **kwargs)
        several = sum(needs_grad(x) for x in flattened(args, kwargs)) > 1
        if several and func not in (*ADD, *SUB) and func not in MOVES:
            raise UnsupportedModelError(no_rule(func))
        return func(*args, **kwargs)

    def attention(self, operation: AttentionOperation, *args: Any, **kwargs: Any) -> torch.Tensor:
        """A function that computes attention."""
        raise NotImplementedError

    def softmax(self, output: torch.Tensor) -> torch.Tensor:
        """An explicit softmax of the model."""
        return output

    def activation(self, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """An activation with f(0) = 0."""
        return output

    def saturating(self, func: Any, output: torch.Tensor) -> torch.Tensor:
        """An activation with f(0) not equal to 0."""
        return output


class ConstantWeights(_GradientRules):
    """Conservative LRP: attention weights and the norms' deviations are constants; a gate is split in halves."""

    def attention(self, operation: AttentionOperation, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The AH rule."""
        return operation.constant_weights(*args, **kwargs)

    def softmax(self, output: torch.Tensor) -> torch.Tensor:
        """The AH rule."""
        return output.detach()


class SharedGradients(_GradientRules):
    """AttnLRP: products are split in halves, norms use the LN rule, activations the identity rule."""

    def attention(self, operation: AttentionOperation, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The uniform rule twice; the softmax, or its equivalent, keeps its gradient."""
        return operation.shared_gradients(*args, **kwargs)

    def activation(self, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The identity rule."""
        return rules.identity_activation(x, output)

    def saturating(self, func: Any, output: torch.Tensor) -> torch.Tensor:
        """``f(x) / x`` has no limit at 0."""
        raise UnsupportedModelError(no_rule(func))


def _frozen(func: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """A norm, as a function, with its standard deviation held constant; also a division by a vector's length."""
    if func is F.normalize:
        return x * _inverse_length(x.detach(), *args, **kwargs)
    names = ("num_groups",) if func is F.group_norm else ("normalized_shape",)
    given = (
        dict(zip((*names, "weight", *(() if func is F.rms_norm else ("bias",)), "eps"), args, strict=False)) | kwargs
    )
    weight, bias, eps = given.get("weight"), given.get("bias"), given.get("eps", None if func is F.rms_norm else 1e-5)
    if func is not F.group_norm:
        if len(given["normalized_shape"]) != 1:
            raise UnsupportedModelError(no_rule(func))
        centred = func is F.layer_norm
        return rules.frozen_norm(x, rules.inverse_deviation(x.detach(), centred, eps), centred, weight, bias)
    grouped = x.reshape(len(x), given["num_groups"], -1)
    scale = rules.inverse_deviation(grouped.detach(), True, eps)
    y = rules.frozen_norm(grouped, scale, True, None, None).reshape(x.shape)
    shape = (1, -1, *[1] * (x.ndim - 2))
    y = y if weight is None else y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def _inverse_length(
    x: torch.Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None
) -> torch.Tensor:
    """``1 / length``, with the arguments of ``F.normalize``."""
    length: torch.Tensor = x.norm(p, dim, keepdim=True)
    return 1 / length.clamp_min(eps)
