"""Gates: values computed from the image by which a signal is multiplied, and which the rules hold constant.

A gate is a sigmoid, or the inverse of a norm's deviation. The signal takes all relevance of the product (Arras et al.,
"Explaining Recurrent Neural Network Predictions in Sentiment Analysis", WASSA 2017, arXiv 1706.07206, for the gates of
an LSTM; Ali et al., ICML 2022, for attention weights and norms).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from captum_astro.capture.operations import flattened, needs_grad, no_rule
from captum_astro.layouts.errors import UnsupportedModelError


class Gates:
    """The gates of one pass: what sigmoids return, and whatever is computed from gates alone."""

    def __init__(self) -> None:
        self._known = WeakTensorKeyDictionary()

    def __contains__(self, x: Any) -> bool:
        return isinstance(x, torch.Tensor) and x in self._known

    def made(self, func: Any, x: torch.Tensor, output: torch.Tensor, slope: torch.Tensor | None = None) -> torch.Tensor:
        """A gate, computed from ``x`` by a function.

        Args:
            func: Is named in the error if relevance reaches the gate by anything but a product.
            x: ``(...)``.
            output: Of x's shape.
            slope: Of a rule for that case, instead of the error.
        """
        gate: torch.Tensor = _OnlyMultiplies.apply(x, output.detach(), func, slope)
        self._known[gate] = True
        return gate

    def follow(self, result: Any) -> Any:
        """What is computed from gates alone is one."""
        for tensor in flattened((result,), {}):
            if needs_grad(tensor):
                self._known[tensor] = True
        return result

    def replace(self, old: torch.Tensor, new: torch.Tensor) -> None:
        """An operation writes a new value into a tensor, which may have been, or become, a gate."""
        self._known.pop(old, None)
        if new in self:
            self._known[old] = True

    def all_among(self, args: Any, kwargs: Any) -> bool:
        """Whether an operation depends on the image by gates alone."""
        moving = [x for x in flattened(args, kwargs) if needs_grad(x)]
        return bool(moving) and all(x in self for x in moving)

    def held(self, value: Any) -> Any:
        """An argument in which gates are constants."""
        if isinstance(value, list | tuple):
            return type(value)(self.held(x) for x in value)
        return value.detach() if value in self else value


class _OnlyMultiplies(torch.autograd.Function):
    """A gate: relevance that reaches it has come through something other than a product."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, output: torch.Tensor, func: Any, slope: torch.Tensor | None) -> torch.Tensor:
        ctx.func, ctx.slope = func, slope
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *gradient: Any) -> Any:
        if ctx.slope is None:
            raise UnsupportedModelError(f"As anything but a factor, {no_rule(ctx.func)}")
        return gradient[0] * ctx.slope, None, None, None
