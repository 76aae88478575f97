"""What is explained: Captum's targets, and where the backward pass starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from captum._utils.common import _select_targets

from captum_astro.functional.attention import widen

Output = Literal["probability", "logit"]


@dataclass(frozen=True)
class Seed:
    """Where the backward pass starts.

    Attributes:
        gradient: The gradient at the model's output, scaled for each sample so that nothing underflows.
        scale: What each sample's gradient is to be multiplied by, ``(B,)``.
    """

    gradient: torch.Tensor
    scale: torch.Tensor

    def full(self) -> torch.Tensor:
        """The gradient at the output as it is."""
        return self.scaled(self.gradient)

    def scaled(self, gradient: torch.Tensor) -> torch.Tensor:
        """A gradient that arrived from there, ``(B, ...)``, as it is; at least in float32.

        Several samples may belong to one image, as its windows do, image by image.
        """
        wide = widen(gradient)
        scale = self.scale.to(wide).repeat_interleave(len(wide) // len(self.scale))
        return wide * scale.reshape(-1, *[1] * (wide.ndim - 1))


@dataclass(frozen=True)
class Target:
    """The one number of each sample's output that is explained.

    Attributes:
        classes: Any form that Captum takes.
        output: The softmax ``"probability"`` of the class, or its ``"logit"``.
    """

    classes: Any
    output: Output = "logit"

    def scores(self, output: torch.Tensor) -> torch.Tensor:
        """The number of each sample, ``(B,)``, as the model gives it.

        Raises:
            AssertionError: If the target's form is not one of Captum's, or leaves more than one number a sample.
            IndexError: If it is out of range.
        """
        if isinstance(self.classes, bool):
            raise AssertionError("Target type bool is not valid: give the class as an int.")
        try:
            chosen: torch.Tensor = _select_targets(output, self.classes)
        except (IndexError, RuntimeError) as error:
            raise IndexError(
                f"target {self.classes} is out of range: the model gives {tuple(output.shape[1:])} outputs a sample, "
                f"so classes run from 0 to {output.shape[-1] - 1}."
            ) from error
        if chosen[0].numel() != 1:
            raise AssertionError(
                f"The model gives {tuple(output.shape[1:])} outputs a sample; pass target=, so that one number is "
                f"explained."
            )
        return chosen

    def seed(self, output: torch.Tensor) -> Seed:
        """The gradient of each sample's number with respect to the model's output.

        The probability's gradient p (1 - p) (...) is split into a gradient of size 1 and its scale, since it would
        underflow.

        Args:
            output: ``(B, classes)``, or ``(B, ..., classes)`` with tuple targets.

        Raises:
            AssertionError: If the target's form is not one of Captum's, or leaves more than one number a sample.
            IndexError: If it is out of range.
            ValueError: If ``output`` is neither, a probability is asked of a model with one output, or the model's
                output is not finite.
        """
        if self.output not in ("probability", "logit"):
            raise ValueError(f"output is 'probability' or 'logit', not {self.output!r}.")
        if self.output == "probability" and (output.ndim < 2 or output.shape[-1] < 2):
            raise ValueError("A model with one output has no softmax probability: pass output='logit'.")
        if not torch.isfinite(output).all():
            raise ValueError("The model's output is not finite, so there is nothing to explain.")
        one_hot = self._one_hot(output)
        if self.output == "logit":
            return Seed(one_hot, one_hot.new_ones(len(one_hot)))
        return _probability_seed(output.detach().to(one_hot), one_hot)

    def positions(self, output: torch.Tensor) -> torch.Tensor:
        """Which rows of an output ``(B, n, classes)`` hold the number: weights ``(B, n)``.

        Raises:
            AssertionError: If the target's form is not one of Captum's, or leaves more than one number a sample.
            IndexError: If it is out of range.
        """
        return (self._one_hot(output) != 0).any(-1).to(output)

    def _one_hot(self, output: torch.Tensor) -> torch.Tensor:
        exact = torch.float32 if output.device.type == "mps" else torch.float64
        with torch.enable_grad():
            leaf = output.detach().to(exact).requires_grad_(True)
            return torch.autograd.grad(self.scores(leaf).sum(), leaf)[0]


class LargestOutput(Target):
    """Each sample's largest output, as a logit."""

    def __init__(self) -> None:
        super().__init__(None)

    def scores(self, output: torch.Tensor) -> torch.Tensor:
        """The largest output of each sample, ``(B,)``."""
        return output.flatten(1).amax(1)

    def _one_hot(self, output: torch.Tensor) -> torch.Tensor:
        flat = output.detach().flatten(1)
        return torch.zeros_like(flat).scatter_(1, flat.argmax(1, keepdim=True), 1).reshape(output.shape)


def _probability_seed(logits: torch.Tensor, one_hot: torch.Tensor) -> Seed:
    """``dp/dz = p (1 - p) (one_hot - q)``, q the softmax of the other classes: nothing cancels."""
    others = logits.masked_fill(one_hot > 0, -torch.inf)
    explained = one_hot.sum(-1, keepdim=True)  # with tuple targets, the row of the output that holds the class
    own, rest = (one_hot * logits).sum(-1, keepdim=True), others.logsumexp(-1, keepdim=True)
    both = torch.logaddexp(own, rest)
    scale = (explained * (own - both + rest - both).exp()).flatten(1).sum(1)
    return Seed(explained * (one_hot - others.softmax(-1)), scale)
