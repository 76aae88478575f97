"""One forward pass, and one backward pass to the pixels, under propagation rules."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from captum_astro.capture.call import Call, no_gradient
from captum_astro.capture.entry import Entry, check_batch, check_called_once
from captum_astro.capture.hooks import Hooks
from captum_astro.functional.attention import widen
from captum_astro.layouts.errors import UnsupportedModelError


@dataclass(frozen=True)
class Arrived:
    """The result of the backward pass.

    Attributes:
        image: Relevance of the pixels, ``(B, C, H, W)``; None for text.
        tokens: Relevance of the tokens that enter the first block, summed over their channels, ``(B, n)``.
        image_size: Size of the image that the model itself received.
    """

    image: torch.Tensor | None
    tokens: torch.Tensor
    image_size: tuple[int, int]


def propagate(call: Call, mode: AbstractContextManager[Any], times_input: bool) -> Arrived:
    """Run a model under a mode, and propagate the relevance of its output back.

    Args:
        call: A private model and its inputs.
        mode: Applies the rules during the forward pass.
        times_input: The backward pass carries gradients, which are then multiplied by their inputs; otherwise it
            carries relevance.

    Raises:
        UnsupportedModelError: If the output does not depend on the input.
    """
    assert call.layout is not None
    layout = call.layout
    entering, entry = _Entering(), Entry(layout.model, layout.reads_text)
    tap = layout.stages[0].stream
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(call.inputs.device.type, enabled=False),  # divisions need the model's full precision
    ):
        with Hooks() as hooks:
            hooks.tap(tap, entering.note_tokens)
            entry.install(hooks)
            given = call.inputs.clone().requires_grad_(not layout.reads_text)
            with mode:
                output = call.run(given)
        if not entering.tokens:
            raise UnsupportedModelError(
                f"The first block of {type(layout.model).__name__} did not run, or not as a part of the model."
            )
        check_called_once(layout.model, len(entering.tokens))
        for tokens in entering.tokens:
            check_batch(layout.model, len(tokens), len(output))
        start = call.target.seed(output)
        wanted = entering.tokens[:1] if layout.reads_text else [given, *entering.tokens[:1]]
        arrived = torch.autograd.grad(output, wanted, start.gradient.to(output), allow_unused=True)
    found = []
    for tensor, gradient in zip(wanted, arrived, strict=True):
        if gradient is None:
            raise no_gradient()
        found.append(start.scaled(gradient) * (widen(tensor.detach()) if times_input else 1))
    tokens = tap.tokens(found[-1]).sum(-1)
    assert entry.size is not None  # tokens were seen
    return Arrived(None if layout.reads_text else found[0], tokens, entry.size)


class _Entering:
    """The input of the first block."""

    def __init__(self) -> None:
        self.tokens: list[torch.Tensor] = []

    def note_tokens(self, x: torch.Tensor) -> None:
        """The tokens, with their graph."""
        if not x.requires_grad:
            x.requires_grad_(True)  # text: there is no gradient before the embedding
        self.tokens.append(x)
