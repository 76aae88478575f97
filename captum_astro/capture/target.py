"""What is explained: Captum's targets, and the start of the backward pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from captum._utils.common import _select_targets

from captum_astro.functional.attention import widen
from captum_astro.functional.distributions import are_distributions

Output = Literal["probability", "logit"]


@dataclass(frozen=True)
class Seed:
    """The start of the backward pass.

    Attributes:
        gradient: The gradient at the model's output, scaled per sample so that nothing underflows.
        scale: The factor by which each sample's gradient is to be multiplied, ``(B,)``.
    """

    gradient: torch.Tensor
    scale: torch.Tensor

    def part(self, number: int, samples: int) -> Seed:
        """That of some of the samples: the numbered one of equal parts."""
        chosen = slice(number * samples, (number + 1) * samples)
        return Seed(self.gradient[chosen], self.scale[chosen])

    def full(self) -> torch.Tensor:
        """The unscaled gradient at the output."""
        return self.scaled(self.gradient)

    def scaled(self, gradient: torch.Tensor) -> torch.Tensor:
        """Undo the scaling of a gradient that was computed from it, ``(B, ...)``; at least in float32.

        Several samples may belong to one image, as windows do, image by image.
        """
        wide = widen(gradient)
        scale = self.scale.to(wide).repeat_interleave(len(wide) // len(self.scale))
        return wide * scale.reshape(-1, *[1] * (wide.ndim - 1))


@dataclass(frozen=True)
class Target:
    """The one output value per sample that is explained.

    Attributes:
        classes: The target, in any form that Captum accepts.
        output: The softmax ``"probability"`` of the class, or its ``"logit"``. If the model itself ends in a softmax or
            a sigmoid, its outputs are the probabilities, so they are explained as they are.
    """

    classes: Any
    output: Output = "logit"

    def repeated(self, times: int) -> Target:
        """The target of the same samples, several times along the batch."""
        if isinstance(self.classes, list):
            return replace(self, classes=self.classes * times)
        if isinstance(self.classes, torch.Tensor) and self.classes.ndim == 1 and len(self.classes) > 1:
            return replace(self, classes=self.classes.repeat(times))
        return self

    def scores(self, output: torch.Tensor) -> torch.Tensor:
        """The explained value of each sample, ``(B,)``, as returned by the model.

        Raises:
            AssertionError: If the target has none of Captum's forms, or leaves more than one value per sample.
            IndexError: If it is out of range.
        """
        _check(self.classes, len(output))
        try:
            chosen: torch.Tensor = _select_targets(output, self.classes)
        except (IndexError, RuntimeError) as error:
            raise IndexError(
                f"target {self.classes} is out of range: the model returns {tuple(output.shape[1:])} outputs a sample, "
                f"so classes run from 0 to {output.shape[-1] - 1}."
            ) from error
        if chosen[0].numel() != 1:
            raise AssertionError(
                f"The model returns {tuple(output.shape[1:])} outputs per sample; pass target=, so that one number is "
                f"explained."
            )
        return chosen

    def seed(self, output: torch.Tensor) -> Seed:
        """The gradient of each sample's explained value with respect to the model's output.

        The probability's gradient p (1 - p) (...) is split into a gradient of size 1 and its scale, because it could
        underflow.

        Args:
            output: ``(B, classes)``, or ``(B, ..., classes)`` with tuple targets; with its graph, which shows whether
                it is a probability already.

        Raises:
            AssertionError: If the target has none of Captum's forms, or leaves more than one value per sample.
            IndexError: If it is out of range.
            ValueError: If ``output`` is neither, the softmax of a single number is requested, or the model's output is
                not finite.
        """
        if self.output not in ("probability", "logit"):
            raise ValueError(f"output must be 'probability' or 'logit', not {self.output!r}.")
        if not torch.isfinite(output).all():
            raise ValueError("The model's output is not finite, so there is nothing to explain.")
        as_it_is = self.output == "logit" or _is_probability(output)
        if not as_it_is and (output.ndim < 2 or output.shape[-1] < 2):
            raise ValueError(
                "A model with one output has no softmax probability: pass output='logit', or NAME:output=logit in a "
                "command."
            )
        one_hot = self._one_hot(output)
        if as_it_is:
            return Seed(one_hot, one_hot.new_ones(len(one_hot)))
        return _probability_seed(output.detach().to(one_hot), one_hot)

    def positions(self, output: torch.Tensor) -> torch.Tensor:
        """Which rows of an output ``(B, ..., classes)`` contain the explained value: weights ``(B, n)``.

        Raises:
            AssertionError: If the target has none of Captum's forms, or leaves more than one value per sample.
            IndexError: If it is out of range.
        """
        return (self._one_hot(output) != 0).any(-1).flatten(1).to(output)

    def largest(self, votes: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """Which of several tokens has the largest value of the explained class: one-hot rows ``(B, m)``.

        Args:
            votes: The value of each token for each class of the output, ``(B, m, classes)``.
            output: The output, ``(B, classes)``.

        Raises:
            AssertionError: If the target has none of Captum's forms, or leaves more than one value per sample.
            IndexError: If it is out of range.
        """
        chosen = self._one_hot(output)
        values = (votes.to(chosen) * chosen[:, None]).sum(-1)
        return torch.nn.functional.one_hot(values.argmax(1), values.shape[1]).to(votes)

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


def _check(classes: Any, samples: int) -> None:
    """Raise an AssertionError, as Captum does, if a target has none of Captum's forms."""
    wrong = None
    if isinstance(classes, torch.Tensor):
        if classes.is_floating_point() or classes.is_complex() or classes.dtype == torch.bool:
            wrong = f"a tensor of {classes.dtype}"
        elif classes.numel() != 1 and classes.shape != (samples,):
            wrong = f"a tensor of shape {tuple(classes.shape)} for {samples} outputs"
    elif isinstance(classes, list):
        if len(classes) != samples:
            wrong = f"a list of {len(classes)} for {samples} outputs"
        else:
            wrong = next((f"a list with {type(one).__name__}" for one in classes if not _is_index(one)), None)
    elif classes is not None and not _is_index(classes):
        wrong = type(classes).__name__
    if wrong is not None:
        raise AssertionError(
            f"The target must be a class as an int (a tuple of ints if an output has several dimensions), or a list or "
            f"an integer tensor with one for each sample, not {wrong}. Numbers of NumPy: int(target), target.tolist()."
        )


def _is_index(given: Any) -> bool:
    return type(given) is int or (isinstance(given, tuple) and all(isinstance(i, int | slice) for i in given))


_MOVES = ("View", "UnsafeView", "Reshape", "Squeeze", "Unsqueeze", "Select", "Slice", "ToCopy", "Clone", "Alias")


def _is_probability(output: torch.Tensor) -> bool:
    """Whether a model ends in a softmax or a sigmoid."""
    if are_distributions(output):
        return True
    node = output.grad_fn
    while node is not None and node.name().startswith(_MOVES):
        node = node.next_functions[0][0]
    return node is not None and node.name().startswith(("Sigmoid", "Softmax"))


def _probability_seed(logits: torch.Tensor, one_hot: torch.Tensor) -> Seed:
    """``dp/dz = p (1 - p) (one_hot - q)``, q the softmax of the other classes, which avoids cancellation."""
    others = logits.masked_fill(one_hot > 0, -torch.inf)
    explained = one_hot.sum(-1, keepdim=True)  # with tuple targets, the output row that contains the class
    own, rest = (one_hot * logits).sum(-1, keepdim=True), others.logsumexp(-1, keepdim=True)
    both = torch.logaddexp(own, rest)
    scale = (explained * (own - both + rest - both).exp()).flatten(1).sum(1)
    return Seed(explained * (one_hot - others.softmax(-1)), scale)
