"""The activation of one module and the explained output's gradient there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from captum_astro.capture.guard import undisturbed
from captum_astro.capture.walk import Seed
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.structure import Tap


def activation_and_gradient(
    model: nn.Module,
    explained: nn.Module,
    tap: Tap,
    forward: Callable[[], torch.Tensor],
    seed: Callable[[torch.Tensor], Seed],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, tuple[int, int] | None]:
    """Run a model once, forward and back to one tensor.

    Args:
        model: The module that ``forward`` runs.
        explained: The model inside it, whose image's size is noted.
        tap: Which tensor.
        forward: Runs the model.
        seed: Gives the gradient at the output.

    Returns:
        The activation and its gradient, of the same shape, the model's output, and the image's height and width.

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

    with undisturbed(model), torch.inference_mode(False), torch.enable_grad():
        if tap.at == "input":
            handle = tap.module.register_forward_pre_hook(lambda m, a: _replaced(look(a[0]), a))
        else:
            handle = tap.module.register_forward_hook(lambda m, a, o: look(o))
        size = explained.register_forward_pre_hook(note)
        try:
            output = forward()
        finally:
            handle.remove()
            size.remove()
        if len(seen) != 1:
            raise UnsupportedModelError(f"{type(tap.module).__name__} ran {len(seen)} times in one pass, not once.")
        start = seed(output.detach())
        gradient = None
        if output.requires_grad:
            (gradient,) = torch.autograd.grad(output, seen[0], start.gradient.to(output), allow_unused=True)
        if gradient is None:
            raise UnsupportedModelError(f"The output does not depend on what {type(tap.module).__name__} gives.")
        return seen[0].detach(), start.scaled(gradient), output.detach(), sizes[0] if sizes else None


def _replaced(first: torch.Tensor | None, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
    return None if first is None else (first, *arguments[1:])
