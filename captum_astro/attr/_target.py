"""What is explained: Captum's targets, and where the backward pass starts."""

from __future__ import annotations

from typing import Any, Literal

import torch
from captum._utils.common import _select_targets

from captum_astro.capture.walk import Seed

Output = Literal["probability", "logit"]


def output_seed(output: torch.Tensor, target: Any, kind: Output) -> Seed:
    """The gradient of the explained number of each sample with respect to the model's output.

    The probability's gradient p (1 - p) (...) is split into a gradient of size 1 and its scale, since it would
    underflow.

    Args:
        output: ``(B, classes)``, or ``(B, ..., classes)`` with tuple targets.
        target: Any form that Captum takes.
        kind: The softmax ``"probability"`` of the target, or its ``"logit"``.

    Raises:
        AssertionError: If the target's form is not one of Captum's, or leaves more than one number a sample.
        IndexError: If it is out of range.
        ValueError: If ``kind`` is unknown, or a probability is asked of a model with one output.
    """
    if kind not in ("probability", "logit"):
        raise ValueError(f"output is 'probability' or 'logit', not {kind!r}.")
    if kind == "probability" and (output.ndim < 2 or output.shape[-1] < 2):
        raise ValueError("A model with one output has no softmax probability: pass output='logit'.")
    if not torch.isfinite(output).all():
        raise ValueError("The model's output is not finite, so there is nothing to explain.")
    exact = torch.float32 if output.device.type == "mps" else torch.float64
    with torch.enable_grad():
        leaf = output.detach().to(exact).requires_grad_(True)
        one_hot = torch.autograd.grad(chosen_scores(leaf, target).sum(), leaf)[0]
    if kind == "logit":
        return Seed(one_hot, one_hot.new_ones(len(one_hot)))
    return _probability_seed(leaf.detach(), one_hot)


def _probability_seed(logits: torch.Tensor, one_hot: torch.Tensor) -> Seed:
    """``dp/dz = p (1 - p) (one_hot - q)``, q the softmax of the other classes: nothing cancels."""
    others = logits.masked_fill(one_hot > 0, -torch.inf)
    explained = one_hot.sum(-1, keepdim=True)  # with tuple targets, the row of the output that holds the class
    own, rest = (one_hot * logits).sum(-1, keepdim=True), others.logsumexp(-1, keepdim=True)
    both = torch.logaddexp(own, rest)
    scale = (explained * (own - both + rest - both).exp()).flatten(1).sum(1)
    return Seed(explained * (one_hot - others.softmax(-1)), scale)


def explained_positions(output: torch.Tensor, target: Any) -> torch.Tensor:
    """Which rows of an output ``(B, n, classes)`` hold the explained number: weights ``(B, n)``.

    Raises:
        AssertionError: If the target's form is not one of Captum's, or leaves more than one number a sample.
        IndexError: If it is out of range.
    """
    return (output_seed(output, target, "logit").gradient != 0).any(-1).to(output)


def chosen_scores(score: torch.Tensor, target: Any) -> torch.Tensor:
    """The one number of each sample that is explained, ``(B,)``.

    Raises:
        AssertionError: If the target's form is not one of Captum's, or leaves more than one number a sample.
        IndexError: If it is out of range.
    """
    if isinstance(target, bool):
        raise AssertionError("Target type bool is not valid: give the class as an int.")
    try:
        chosen: torch.Tensor = _select_targets(score, target)
    except (IndexError, RuntimeError) as error:
        raise IndexError(
            f"target {target} is out of range: the model gives {tuple(score.shape[1:])} outputs a sample, so classes "
            f"run from 0 to {score.shape[-1] - 1}."
        ) from error
    if chosen[0].numel() != 1:
        raise AssertionError(
            f"The model gives {tuple(score.shape[1:])} outputs a sample; pass target=, so that one number is explained."
        )
    return chosen
