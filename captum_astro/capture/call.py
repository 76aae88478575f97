"""One call of a model, and which part of its output is explained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from captum_astro.capture.target import Target
from captum_astro.layouts.base import Layout
from captum_astro.layouts.errors import UnsupportedModelError


@dataclass(frozen=True, eq=False)
class Call:
    """A model and its inputs.

    Attributes:
        model: The module that is run: the explained model, or a wrapper around it.
        inputs: Images ``(B, C, H, W)``, patches ``(B, n, ...)``, or token ids ``(B, n)``.
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
            TypeError: If the model does not return a tensor with one output for each sample.
            UnsupportedModelError: If gradients are enabled, but the output has none.
        """
        given = self.inputs if inputs is None else inputs
        if given.is_inference():
            given = given.clone()  # an inference tensor cannot be saved for a backward pass
        return _checked(self.model(given, *self.arguments))


def no_gradient(reached: str = "the image") -> UnsupportedModelError:
    """The error for a model whose output has no gradient.

    Args:
        reached: What the gradient should reach.
    """
    return UnsupportedModelError(
        f"The output does not depend on {reached} by a gradient. Part of the model runs under torch.no_grad() or in "
        f"inference mode, its output is detached, or it ends in a softmax, which ConservativeLRP and ProjectedFlow "
        f"hold constant: explain it without that. Parameters may stay frozen (requires_grad=False)."
    )


# the fields of Hugging Face's outputs that may be explained, the first that is there
_FIELDS = ("logits", "image_embeds", "pooler_output")


def _checked(output: Any) -> torch.Tensor:
    if not isinstance(output, torch.Tensor):
        fields = (getattr(output, name, None) for name in _FIELDS)
        output = next((field for field in fields if isinstance(field, torch.Tensor)), output)
    if not isinstance(output, torch.Tensor):
        raise TypeError(
            f"The model must return a tensor of logits, not a {type(output).__name__}. Wrap it in a module that "
            f"returns them, such as output['logits'], output.logits or output[0]."
        )
    if output.ndim == 0:
        raise TypeError("The model must return one output, or one row of outputs, for each image, not one number.")
    if torch.is_grad_enabled() and not output.requires_grad:
        raise no_gradient()
    return output
