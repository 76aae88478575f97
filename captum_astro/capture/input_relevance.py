"""One pass forward and one back to the pixels, under propagation rules."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from captum_astro.capture.guard import undisturbed
from captum_astro.capture.walk import Seed
from captum_astro.functional.attention import widen
from captum_astro.layouts.base import Layout
from captum_astro.layouts.errors import UnsupportedModelError


@dataclass(frozen=True)
class Arrived:
    """What the backward pass brought.

    Attributes:
        image: At the pixels, ``(B, C, H, W)``.
        tokens: At the tokens that enter the first block, summed over their channels, ``(B, n)``; None without a layout.
        image_size: Of the image that the model itself was given.
    """

    image: torch.Tensor
    tokens: torch.Tensor | None
    image_size: tuple[int, int]


def propagate(
    model: nn.Module,
    layout: Layout | None,
    mode: AbstractContextManager[Any],
    forward: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    seed: Callable[[torch.Tensor], Seed],
    times_input: bool,
) -> Arrived:
    """Run a model under a mode, and bring the relevance of its output back.

    Args:
        model: The module that ``forward`` runs.
        layout: Of the model that is explained, if it has one.
        mode: Puts the rules in place for the forward pass.
        forward: Runs the model on images.
        images: ``(B, C, H, W)``.
        seed: Where the backward pass starts.
        times_input: The backward pass carries gradients, which are to be multiplied by what they belong to.

    Raises:
        UnsupportedModelError: If the output does not depend on the image.
    """
    thread = threading.get_ident()
    streams: list[torch.Tensor] = []
    sizes: list[torch.Size] = []

    def look(kept: list[Any], x: Any) -> None:
        if threading.get_ident() == thread:
            kept.append(x)

    handles = []
    with (
        undisturbed(model),
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(images.device.type, enabled=False),  # divisions need the precision that the model has
    ):
        if layout is not None:
            tap = layout.stages[0].stream
            assert tap.at == "input"
            handles.append(tap.module.register_forward_pre_hook(lambda m, a: look(streams, a[0])))
            handles.append(layout.model.register_forward_pre_hook(lambda m, a: look(sizes, a[0].shape[-2:])))
        try:
            pixels = images.clone().requires_grad_(True)
            with mode:
                output = forward(pixels)
        finally:
            for handle in handles:
                handle.remove()
        start = seed(output.detach())
        wanted = [pixels, *streams[:1]]
        if not output.requires_grad:
            raise UnsupportedModelError("The output does not depend on the image by a gradient.")
        arrived = torch.autograd.grad(output, wanted, start.gradient.to(output), allow_unused=True)
    found = []
    for tensor, gradient in zip(wanted, arrived, strict=True):
        if gradient is None:
            raise UnsupportedModelError("The output does not depend on the image by a gradient.")
        scale = start.scale.to(widen(gradient)).reshape(-1, *[1] * (gradient.ndim - 1))
        found.append(widen(gradient) * scale * (widen(tensor.detach()) if times_input else 1))
    size = tuple(sizes[0]) if sizes else tuple(images.shape[-2:])
    return Arrived(found[0], found[1].sum(-1) if len(found) > 1 else None, (size[0], size[1]))
