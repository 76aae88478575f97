"""The activation of one module and the explained output's gradient there."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from captum_astro.capture.call import Call
from captum_astro.capture.guard import undisturbed
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.structure import Tap


@dataclass(frozen=True, eq=False)
class Activation:
    """One tensor of a pass.

    Attributes:
        value: The tensor.
        gradient: The explained output's gradient there, of the same shape.
        output: The model's output.
        image_size: Height and width of the image that the explained model was given; None if it was given none.
    """

    value: torch.Tensor
    gradient: torch.Tensor
    output: torch.Tensor
    image_size: tuple[int, int] | None


def activation_and_gradient(call: Call, tap: Tap) -> Activation:
    """Run a model once, forward and back to one tensor.

    Args:
        call: The model with what it is given.
        tap: Which tensor.

    Raises:
        UnsupportedModelError: If the tensor is not there, or the output does not depend on it.
    """
    thread = threading.get_ident()
    seen: list[torch.Tensor] = []
    sizes: list[tuple[int, int]] = []

    def note(module: nn.Module, arguments: Any) -> None:
        if threading.get_ident() == thread and arguments and getattr(arguments[0], "ndim", 0) == 4:
            sizes.append((arguments[0].shape[-2], arguments[0].shape[-1]))

    def look(x: Any) -> torch.Tensor | None:
        if threading.get_ident() != thread:
            return None
        if not isinstance(x, torch.Tensor):
            raise UnsupportedModelError(f"{type(tap.module).__name__} gives a {type(x).__name__}, not a tensor.")
        if not x.requires_grad:
            x.requires_grad_(True)
        seen.append(x)
        return x.clone()  # what follows may change its input in place

    with undisturbed(call.model), torch.inference_mode(False), torch.enable_grad():
        if tap.at == "input":
            handle = tap.module.register_forward_pre_hook(lambda m, a: _replaced(look(a[0]), a))
        else:
            handle = tap.module.register_forward_hook(lambda m, a, o: look(o))
        size = call.explained.register_forward_pre_hook(note)
        try:
            output = call.run()
        finally:
            handle.remove()
            size.remove()
        if len(seen) != 1:
            raise UnsupportedModelError(f"{type(tap.module).__name__} ran {len(seen)} times in one pass, not once.")
        start = call.target.seed(output.detach())
        gradient = None
        if output.requires_grad:
            (gradient,) = torch.autograd.grad(output, seen[0], start.gradient.to(output), allow_unused=True)
        if gradient is None:
            raise UnsupportedModelError(f"The output does not depend on what {type(tap.module).__name__} gives.")
        return Activation(seen[0].detach(), start.scaled(gradient), output.detach(), sizes[0] if sizes else None)


def _replaced(first: torch.Tensor | None, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
    return None if first is None else (first, *arguments[1:])
