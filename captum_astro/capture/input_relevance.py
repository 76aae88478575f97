"""One forward pass, and one backward pass to the pixels, under propagation rules."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from captum_astro.capture.call import Call, no_gradient
from captum_astro.capture.constants import Constants
from captum_astro.capture.entry import Entry, check_batch, check_called_once
from captum_astro.capture.hooks import Hooks
from captum_astro.functional.attention import widen
from captum_astro.layouts.base import Layout
from captum_astro.layouts.errors import UnsupportedModelError


@dataclass(frozen=True)
class Arrived:
    """The result of the backward pass.

    Attributes:
        image: Relevance of the pixels, of the inputs' shape; None for text.
        tokens: Relevance of the tokens that enter the first block, summed over their channels, ``(B, n)``; None if no
            layout says which tensor they are.
        image_size: Size of the image that the model itself received.
        score: The target as the model returns it, also where its probability is explained, summed over the samples.
        constants: The relevance of each of the model's constants that were noted.
    """

    image: torch.Tensor | None
    tokens: torch.Tensor | None
    image_size: tuple[int, int]
    score: float
    constants: tuple[torch.Tensor, ...]


def propagate(
    call: Call, mode: AbstractContextManager[Any], times_input: bool, constants: Constants | None = None
) -> Arrived:
    """Run a model under a mode, and propagate the relevance of its output back.

    Args:
        call: A private model and its inputs. Without a layout, relevance is propagated to the pixels only.
        mode: Applies the rules during the forward pass.
        times_input: The backward pass carries gradients, which are then multiplied by their inputs; otherwise it
            carries relevance.
        constants: Those that the mode notes, if their relevance is wanted too.

    Raises:
        UnsupportedModelError: If the output does not depend on the input.
    """
    reads_text = call.layout is not None and call.layout.reads_text
    entering = None if call.layout is None else _Entering(call.layout)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast(call.inputs.device.type, enabled=False),  # divisions need the model's full precision
    ):
        with Hooks() as hooks:
            if entering is not None:
                entering.install(hooks)
            given = call.inputs.clone().requires_grad_(not reads_text)
            with mode:
                output = call.run(given)
        wanted = [] if reads_text else [given]
        if entering is not None:
            wanted.append(entering.tokens(len(output)))
            if constants is not None:
                constants.entered(entering.tap.tokens(wanted[-1]))
        start, leaves = call.target.seed(output), [] if constants is None else constants.leaves
        arrived = torch.autograd.grad(output, [*wanted, *leaves], start.gradient.to(output), allow_unused=True)
    found = []
    for tensor, gradient in zip(wanted, arrived, strict=False):
        if gradient is None:
            raise no_gradient()
        found.append(start.scaled(gradient) * (widen(tensor.detach()) if times_input else 1))
    added = [] if constants is None else constants.relevance(arrived[len(wanted) :], times_input)
    if constants is not None and constants.of_images:
        added = [start.scaled(x) for x in added]
    return Arrived(
        image=None if reads_text else found[0],
        tokens=None if entering is None else entering.tap.tokens(found[-1]).sum(-1),
        image_size=(given.shape[-2], given.shape[-1]) if entering is None else entering.image_size,
        score=call.target.scores(output.detach()).sum().item(),
        constants=tuple(added),
    )


class _Entering:
    """The input of the first block, and the size of the image that the model received."""

    def __init__(self, layout: Layout) -> None:
        self.tap = layout.stages[0].stream
        self._model = layout.model
        self._entry = Entry(layout.model, layout)
        self._seen: list[torch.Tensor] = []

    def install(self, hooks: Hooks) -> None:
        """Note both during a pass."""
        hooks.tap(self.tap, self._note)
        self._entry.install(hooks)

    def tokens(self, images: int) -> torch.Tensor:
        """The tokens, with their graph; an error if they are not those of the images."""
        if not self._seen:
            raise UnsupportedModelError(
                f"The first block of {type(self._model).__name__} did not run, or not as a part of the model."
            )
        check_called_once(self._model, len(self._seen))
        check_batch(self._model, len(self._seen[0]), images)
        return self._seen[0]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width; for texts and lists of patches, 1 and their length."""
        assert self._entry.size is not None  # tokens were seen
        return self._entry.size

    def _note(self, x: torch.Tensor) -> None:
        if not x.requires_grad:
            x.requires_grad_(True)  # text: there is no gradient before the embedding
        self._seen.append(x)
