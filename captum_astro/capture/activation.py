"""The activation of one module, and the gradient of the explained output with respect to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from captum_astro.capture.call import Call, no_gradient
from captum_astro.capture.entry import Entry
from captum_astro.capture.hooks import Hooks
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Tap


@dataclass(frozen=True, eq=False)
class Activation:
    """One tensor of a pass.

    Attributes:
        value: The tensor.
        gradient: The gradient of the explained output with respect to it, of the same shape.
        output: The model's output.
        image_size: Height and width of the image that the explained model received; None if there was none.
    """

    value: torch.Tensor
    gradient: torch.Tensor
    output: torch.Tensor
    image_size: tuple[int, int] | None


def activation_and_gradient(call: Call, tap: Tap) -> Activation:
    """Run a model once, forward and back to one tensor.

    Args:
        call: The model and its inputs.
        tap: Which tensor to read.

    Raises:
        UnsupportedModelError: If the tensor does not occur, or the output does not depend on it.
    """
    look, inside = _Look(tap), type(tap.module).__name__
    entry = Entry(call.explained, call.layout)
    with torch.inference_mode(False), torch.enable_grad():
        with Hooks() as hooks:
            entry.install(hooks)
            look.install(hooks)
            output = call.run()
        if len(look.seen) != 1:
            raise UnsupportedModelError(f"{inside} ran {len(look.seen)} times in one pass, not once.")
        start = call.target.seed(output)
        (gradient,) = torch.autograd.grad(output, look.seen[0], start.gradient.to(output), allow_unused=True)
        if gradient is None:
            raise UnsupportedModelError(f"The output does not depend on the output of {inside}.")
        return Activation(look.seen[0].detach(), start.scaled(gradient), output.detach(), entry.size)


class _Look:
    """Keeps one tensor of a pass, with its graph."""

    def __init__(self, tap: Tap) -> None:
        self._tap = tap
        self.seen: list[torch.Tensor] = []

    def install(self, hooks: Hooks) -> None:
        """Record the tap's tensor."""
        hooks.tap(self._tap, self._note)
        if self._tap.at == "output":
            hooks.callback(self._tap.module.register_forward_hook(self._demand_tensor).remove)

    def _note(self, x: torch.Tensor) -> torch.Tensor:
        if not torch.is_grad_enabled():
            raise no_gradient()
        if not x.requires_grad:
            x.requires_grad_(True)
        self.seen.append(x)
        return x.clone()  # later layers may modify it in place

    def _demand_tensor(self, module: nn.Module, args: Any, output: Any) -> None:
        if not isinstance(output, torch.Tensor):
            raise UnsupportedModelError(f"{type(module).__name__} returns a {type(output).__name__}, not a tensor.")
