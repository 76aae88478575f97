"""Rules that modify gradients, so that input times gradient is the relevance: Conservative LRP and AttnLRP."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import RmsNorm2d
from timm.layers.norm import RmsNorm2dFp32
from torch import nn

from captum_astro.capture.constants import Constants
from captum_astro.capture.frozen_norms import frozen
from captum_astro.capture.operations import (
    ACTIVATION,
    AFFINE,
    HOMOGENEOUS,
    NORM,
    POWER,
    PRODUCT,
    SATURATING,
    SOFTMAX,
    VARIANCE,
    flattened,
    is_composed,
    is_positive,
    needs_grad,
    no_rule,
)
from captum_astro.capture.rules_mode import Rules
from captum_astro.functional import gradient_rules as rules
from captum_astro.functional.operations import ATTENTION, RULED, AttentionOperation
from captum_astro.layouts.errors import UnsupportedModelError


class _GradientRules(Rules):
    """Gradient rules: norms hold their deviation constant, products of two activations are split in halves."""

    comparable = True

    def noted(self, constants: Constants, func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Sums and the biases of layers."""
        return constants.in_layers(func, *super().noted(constants, func, args, kwargs))

    def composed(self, module: nn.Module, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The LN rule for RMS norms, the method's own rule for activations."""
        if is_composed(module):
            return self.activation(x, output)
        dim = 1 if isinstance(module, RmsNorm2d | RmsNorm2dFp32) else -1
        moved = x.movedim(dim, -1)
        norm: Any = module
        return rules.frozen_norm(moved, False, norm.eps, norm.weight, None).movedim(-1, dim)

    def slope(self, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor | None:
        """The identity rule for what varies, ``f(x) - f(0)``; ``f(0) = 1/2`` is a constant."""
        return rules.identity_slope(x, gate - 0.5)

    def operation(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The rule of each operation; an operation without a rule raises an error."""
        if func in ATTENTION:
            return self.attention(ATTENTION[func], *args, **kwargs)
        if func in SOFTMAX:
            return self.softmax(func(*args, **kwargs))
        if func in NORM:
            return frozen(func, *args, **kwargs)
        if func in RULED:
            return RULED[func].gradient(*args, **kwargs)
        if func in ACTIVATION:
            return self.activation(args[0], func(args[0], *args[1:], **kwargs))
        if func in SATURATING:
            return self.saturating(func, func(*args, **kwargs))
        if func in HOMOGENEOUS or (func in POWER and is_positive(*args[1:], **kwargs)):
            return rules.identity_activation(args[0], func(args[0].detach(), *args[1:], **kwargs))
        if func in VARIANCE:  # of degree two
            return func(rules.ScaledGradient.apply(args[0], 0.5), *args[1:], **kwargs)
        if func in PRODUCT:
            return _product(func, args, kwargs)
        result = func(*args, **kwargs)
        if func in AFFINE or not any(needs_grad(x) for x in flattened((result,), {})):
            return result
        raise UnsupportedModelError(no_rule(func))

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


class ConstantDecisions(ConstantWeights):
    """What decides whether something passes is constant: also the gate ``f(x) / x`` of an activation."""

    def activation(self, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The identity rule."""
        return rules.identity_activation(x, output)


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


def _product(func: Any, args: Any, kwargs: Any) -> Any:
    """A product: relevance is shared equally among the factors that depend on the image."""
    if (
        any(needs_grad(x) for name, x in kwargs.items() if name != "bias")
        and sum(map(needs_grad, flattened(args, kwargs))) > 1
    ):
        raise UnsupportedModelError(no_rule(func))
    first, *rest = args
    if isinstance(first, str):  # of einsum, whose operands may be in a list
        operands = list(rest[0]) if isinstance(rest[0], list | tuple) else rest
        return func(first, *_shared(operands), **kwargs)
    return func(*_shared(args[:2]), *args[2:], **kwargs)


def _shared(factors: Any) -> list[Any]:
    number = sum(map(needs_grad, factors))
    if number < 2:
        return list(factors)
    return [rules.ScaledGradient.apply(x, 1 / number) if needs_grad(x) else x for x in factors]
