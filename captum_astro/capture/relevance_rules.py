"""Deep Taylor (z+) in the backward pass: LRP and Transformer Attribution."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.weak import WeakTensorKeyDictionary

from captum_astro.capture.constants import Constants
from captum_astro.capture.convolutions import convolution, of_patches, reads_patches
from captum_astro.capture.operations import (
    ACTIVATION,
    ADD,
    BATCH_NORM,
    CLAMP,
    CONVOLUTION,
    DIV,
    DROPOUT,
    EINSUM,
    HOMOGENEOUS,
    LINEAR,
    MATMUL,
    MOVES,
    MUL,
    NEG,
    NORM,
    POOL,
    POWER,
    RESIZE,
    RSUB,
    SOFTMAX,
    SUB,
    TRANSPOSED,
    VARIANCE,
    both_need_grad,
    flattened,
    is_positive,
    needs_grad,
    no_rule,
)
from captum_astro.capture.rules_mode import Rules
from captum_astro.functional import relevance_rules as rules
from captum_astro.functional.gradient_rules import ScaledGradient
from captum_astro.functional.operations import ATTENTION, RULED
from captum_astro.functional.z_plus import LinearZPlus, Workspace
from captum_astro.layouts.errors import UnsupportedModelError


class Relevance(Rules):
    """Deep Taylor with z+: the backward pass carries relevance.

    Args:
        model: The module that is run.
        images: The number of images: each is normalised separately, over all of its windows.
        from_pixels: Whether the first layer reads pixels, and uses the pixel rule.
    """

    linear: type[LinearZPlus] = LinearZPlus  # the rule of linear layers and convolutions

    def __init__(self, model: nn.Module, images: int, from_pixels: bool = True) -> None:
        super().__init__(model)
        self._images, self._from_pixels = images, from_pixels
        self._moved_pixels = WeakTensorKeyDictionary()
        self._workspace = Workspace()

    def noted(self, constants: Constants, func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """Sums, except those that normalise the pixels."""
        if func in ADD | SUB and self._are_pixels(args[0]):
            return args, kwargs
        return super().noted(constants, func, args, kwargs)

    def composed(self, module: nn.Module, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """Norms and activations pass relevance on unchanged."""
        passed: torch.Tensor = rules.Unchanged.apply(x, output.detach())
        return passed

    def added(self, a: torch.Tensor, b: torch.Tensor) -> Any:
        """``a + b``, with the rule of a residual add."""
        return rules.ResidualAdd.apply(a, b, self._images)

    def operation(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The rule of each operation; an operation without a rule raises an error."""
        rule = self._rule(func, args, kwargs)
        if rule is not None:
            return rule()
        result = func(*args, **kwargs)
        moving = [x for x in flattened((result,), {}) if needs_grad(x)]
        if moving and func not in MOVES | RESIZE:
            raise UnsupportedModelError(no_rule(func))
        if args and self._are_pixels(args[0]):
            self._moved_pixels.update((x, True) for x in moving)
        return result

    def _are_pixels(self, x: Any) -> bool:
        """Whether a tensor contains pixels, moved or normalised: the layers that read them use the pixel rule."""
        return self._from_pixels and needs_grad(x) and (x.is_leaf or x in self._moved_pixels)

    def _rule(self, func: Any, args: Any, kwargs: Any) -> Callable[[], Any] | None:
        if func in ATTENTION:
            return lambda: _attention(func, *args, **kwargs)
        if func in LINEAR and not any(needs_grad(x) for x in (*args[1:], *kwargs.values())):
            return lambda: self._linear(func, args, kwargs)
        if func in RULED:
            return lambda: RULED[func].relevance(*args, **kwargs)
        if func in NORM | BATCH_NORM | DROPOUT | ACTIVATION | HOMOGENEOUS | CLAMP or (
            func in POWER and is_positive(*args[1:], **kwargs)
        ):
            return lambda: rules.Unchanged.apply(args[0], func(args[0].detach().clone(), *args[1:], **kwargs))
        if func in ADD | SUB | RSUB | MUL | DIV:
            return None if kwargs else self._arithmetic(func, args)
        if func in NEG:
            return lambda: _negative(args[0])
        if func in MATMUL and (both_need_grad(args) or not isinstance(args[1], nn.Parameter)):
            return lambda: _apply(rules.Product, *args, func)
        if func in MATMUL and needs_grad(args[0]):
            return lambda: _apply(
                self.linear, args[0], args[1].detach(), None, torch.matmul, lambda r, w: r @ w.transpose(-2, -1)
            )
        if func in EINSUM and len(args) == 3 and needs_grad(args[1]) and not needs_grad(args[2]):
            return lambda: _apply(self.linear, args[1], args[2].detach(), None, *_products(args[0]))
        if func in EINSUM and len(args) == 3:
            return lambda: _apply(rules.Product, *args[1:], partial(func, args[0]))
        if func in SOFTMAX:
            return lambda: _apply(rules.Unchanged, args[0], func(args[0].detach(), *args[1:], **kwargs))
        if func in POOL and not (func in RESIZE and self._are_pixels(args[0])):  # a resized image is still one
            return lambda: _apply(rules.Pooled, args[0], lambda x: func(x, *args[1:], **kwargs))
        if func in VARIANCE:  # of degree two
            half = _apply(ScaledGradient, args[0], 0.5)
            return lambda: _apply(rules.Pooled, half, lambda x: func(x, *args[1:], **kwargs))
        return None

    def _arithmetic(self, func: Any, args: Any) -> Callable[[], Any] | None:
        """The rule of a sum, a difference, a product or a quotient."""
        if func in ADD | SUB and self._are_pixels(args[0]) and not both_need_grad(args):
            # a normalisation before the first layer: the pixels keep their relevance
            return lambda: self._still_pixels(_apply(rules.Unchanged, args[0], func(args[0].detach(), *args[1:])))
        if func in ADD:
            return lambda: self.added(*_two(args))
        if func in SUB | RSUB:
            one, other = args if func in SUB else args[::-1]
            return lambda: self.added(*_two((one, _negative(other))))
        if func in MUL and both_need_grad(args):
            return lambda: _apply(rules.Gate, *args)
        x, factor = (args[0], args[1]) if needs_grad(args[0]) else (args[1], args[0])
        if needs_grad(factor) or (func in DIV and x is args[1]):
            return None
        found = _apply(rules.Unchanged, *_constant(func, x, factor))
        return lambda: self._still_pixels(found) if self._are_pixels(x) else found

    def _still_pixels(self, x: torch.Tensor) -> torch.Tensor:
        self._moved_pixels[x] = True
        return x

    def _linear(self, func: Any, args: Any, kwargs: Any) -> Any:
        transposed = ("output_padding", "groups", "dilation") if func in TRANSPOSED else ("dilation", "groups")
        given = dict(zip(("weight", "bias", "stride", "padding", *transposed), args[1:], strict=False)) | kwargs
        x, weight, bias = args[0], given.pop("weight").detach(), given.pop("bias", None)
        bias = None if bias is None else bias.detach()
        if self._are_pixels(x):
            output = func(x.detach(), weight, bias, **given)
            product = of_patches if reads_patches(func, x, weight, given) else partial(func, bias=None, **given)
            return _apply(rules.InputZB, x, product, weight, output)
        if func in CONVOLUTION | TRANSPOSED:
            return _apply(self.linear, x, weight, bias, *convolution(func, given, x.detach()), self._workspace)
        return _apply(self.linear, x, weight, bias, F.linear, torch.matmul, self._workspace)


def _attention(func: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    try:
        return ATTENTION[func].relevance(*args, **kwargs)
    except ValueError as error:
        raise UnsupportedModelError(str(error)) from error


def _products(equation: str) -> tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]:
    """The product ``ab,bc->ac`` of an activation and a constant, and its transpose ``ac,bc->ab``."""
    factors, output = equation.replace(" ", "").split("->")
    x, weight = factors.split(",")
    return (
        lambda y, w: torch.einsum(f"{x},{weight}->{output}", y, w),
        lambda r, w: torch.einsum(f"{output},{weight}->{x}", r, w),
    )


def _constant(func: Any, x: torch.Tensor, factor: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """A product or quotient with a constant, of x's shape."""
    output = x.detach() / factor if func in DIV else x.detach() * factor
    return (x if x.shape == output.shape else x.expand_as(output)), output


def _negative(x: torch.Tensor) -> Any:
    """Relevance keeps its sign where the sign of a value changes."""
    return _apply(rules.Unchanged, x, -x.detach()) if needs_grad(x) else -torch.as_tensor(x)


def _two(args: Any) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = (x if isinstance(x, torch.Tensor) else None for x in args[:2])
    like = a if a is not None else b
    assert like is not None
    return (
        a if a is not None else torch.as_tensor(args[0], dtype=like.dtype, device=like.device).expand_as(like),
        b if b is not None else torch.as_tensor(args[1], dtype=like.dtype, device=like.device).expand_as(like),
    )


def _apply(rule: Any, *args: Any) -> Any:
    return rule.apply(*args)
