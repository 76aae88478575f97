"""One call of a model, and which part of its output is explained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from captum_astro.capture.target import Target
from captum_astro.layouts.base import Layout


@dataclass(frozen=True, eq=False)
class Call:
    """A model and its inputs.

    Attributes:
        model: The module that is run: the explained model, or a wrapper around it.
        inputs: Images ``(B, C, H, W)``, or token ids ``(B, n)``.
        target: The output value to explain.
        arguments: Additional arguments of the model after its inputs.
        layout: The layout of the explained model; None for methods that need none.
    """

    model: nn.Module
    inputs: torch.Tensor
    target: Target
    arguments: tuple[Any, ...] = ()
    layout: Layout | None = None

    @property
    def explained(self) -> nn.Module:
        """The explained model: the one with a layout, if there is one."""
        return self.model if self.layout is None else self.layout.model

    def run(self, inputs: torch.Tensor | None = None) -> torch.Tensor:
        """The model's output.

        Args:
            inputs: Replace the inputs of the call.

        Raises:
            TypeError: If the model does not return a tensor.
        """
        given = self.inputs if inputs is None else inputs
        if given.is_inference():
            given = given.clone()  # an inference tensor cannot be saved for a backward pass
        return _tensor(self.model(given, *self.arguments))


def _tensor(output: Any) -> torch.Tensor:
    if not isinstance(output, torch.Tensor):
        raise TypeError(f"The model must return a tensor of logits, not a {type(output).__name__}. Wrap it.")
    return output
