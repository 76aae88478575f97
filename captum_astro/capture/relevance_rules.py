"""Deep Taylor (z+) in the backward pass: LRP and Transformer Attribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.grad import conv2d_input

from captum_astro.capture.operations import (
    ACTIVATION,
    ADD,
    BATCH_NORM,
    DIV,
    DROPOUT,
    LINEAR,
    MATMUL,
    MOVES,
    MUL,
    NEG,
    NORM,
    POOL,
    SOFTMAX,
    SUB,
    both_need_grad,
    flattened,
    needs_grad,
    no_rule,
)
from captum_astro.capture.rules_mode import Rules
from captum_astro.functional import relevance_rules as rules
from captum_astro.functional.operations import ATTENTION, RULED
from captum_astro.layouts.errors import UnsupportedModelError


class Relevance(Rules):
    """Deep Taylor with z+: the backward pass carries relevance.

    Args:
        model: The module that is run.
        images: The number of images: each is normalised separately, over all of its windows.
        from_pixels: Whether the first layer reads pixels, and uses the pixel rule.
    """

    def __init__(self, model: nn.Module, images: int, from_pixels: bool = True) -> None:
        super().__init__(model)
        self._images, self._pixels = images, from_pixels

    def composed(self, module: nn.Module, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """Norms and activations pass relevance on unchanged."""
        passed: torch.Tensor = rules.Unchanged.apply(x, output.detach())
        return passed

    def operation(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The rule of each operation; an operation without a rule raises an error."""
        rule = self._rule(func, args, kwargs)
        if rule is not None:
            return rule()
        result = func(*args, **kwargs)
        if func in MOVES or not any(needs_grad(x) for x in flattened((result,), {})):
            return result
        raise UnsupportedModelError(no_rule(func))

    def _rule(self, func: Any, args: Any, kwargs: Any) -> Callable[[], Any] | None:
        if func in ATTENTION:
            return lambda: _attention(func, *args, **kwargs)
        if func in LINEAR:
            return lambda: self._linear(func, args, kwargs)
        if func in RULED:
            return lambda: RULED[func].relevance(*args, **kwargs)
        if func in (*NORM, *BATCH_NORM, *DROPOUT) or func in ACTIVATION:
            return lambda: rules.Unchanged.apply(args[0], func(args[0].detach().clone(), *args[1:], **kwargs))
        if func in (*ADD, *SUB, *MUL, *DIV) and kwargs:
            return None
        if func in (*ADD, *SUB) and self._pixels and not both_need_grad(args) and needs_grad(args[0]):
            # a normalisation before the first layer: the pixels keep their relevance
            return lambda: _apply(rules.Unchanged, args[0], func(args[0].detach(), *args[1:]))
        if func in ADD:
            return lambda: _apply(rules.ResidualAdd, *_two(args), self._images)
        if func in SUB:
            return lambda: _apply(rules.ResidualAdd, args[0], _negative(args[1]), self._images)
        if func in NEG:
            return lambda: _negative(args[0])
        if func in MUL and both_need_grad(args):
            return lambda: _apply(rules.Gate, *args)
        if func in (*MUL, *DIV):
            x, factor = (args[0], args[1]) if needs_grad(args[0]) else (args[1], args[0])
            if needs_grad(factor) or (func in DIV and x is args[1]):
                return None
            return lambda: _apply(rules.Unchanged, *_constant(func, x, factor))
        if func in MATMUL and both_need_grad(args):
            return lambda: _apply(rules.Product, *args)
        if func in MATMUL and not isinstance(args[1], nn.Parameter):
            return lambda: _apply(rules.Product, *args)
        if func in MATMUL and needs_grad(args[0]):
            return lambda: _apply(
                rules.LinearZPlus, args[0], args[1].detach(), None, torch.matmul, lambda r, w: r @ w.transpose(-2, -1)
            )
        if func is torch.einsum and len(args) == 3 and needs_grad(args[1]) and not needs_grad(args[2]):
            return lambda: _apply(rules.LinearZPlus, args[1], args[2].detach(), None, *_products(args[0]))
        if func in SOFTMAX:
            return lambda: _apply(rules.Unchanged, args[0], func(args[0].detach(), *args[1:], **kwargs))
        if func in POOL:
            return lambda: _apply(rules.Pooled, args[0], lambda x: func(x, *args[1:], **kwargs))
        return None

    def _linear(self, func: Any, args: Any, kwargs: Any) -> Any:
        given = dict(zip(("input", "weight", "bias", "stride", "padding", "dilation", "groups"), args, strict=False))
        given |= kwargs
        x, weight, bias = given.pop("input"), given.pop("weight").detach(), given.pop("bias", None)
        if self._pixels:
            self._pixels = False
            output = func(x.detach(), weight, bias, **given)
            return _apply(rules.InputZB, x, lambda y, w: func(y, w, None, **given), weight, output)
        bias = None if bias is None else bias.detach()
        if func is F.linear:
            return _apply(rules.LinearZPlus, x, weight, bias, F.linear, torch.matmul)
        return _apply(
            rules.LinearZPlus,
            x,
            weight,
            bias,
            lambda y, w: F.conv2d(y, w, None, **given),
            lambda r, w: conv2d_input(x.shape, w, r, **given),
        )


def _attention(func: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
    try:
        return ATTENTION[func].relevance(*args, **kwargs)
    except ValueError as error:
        raise UnsupportedModelError(str(error)) from error


def _products(equation: str) -> tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]:
    """The product ``ab,bc->ac`` of an activation and a constant, and its transpose ``ac,bc->ab``."""
    given, output = equation.replace(" ", "").split("->")
    x, weight = given.split(",")
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
