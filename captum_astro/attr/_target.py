"""What is explained: Captum's targets, and where the backward pass starts."""

from __future__ import annotations

from typing import Any, Literal

import torch
from captum._utils.common import _select_targets

from captum_astro.capture.walk import Seed

Output = Literal["probability", "logit"]


def output_seed(output: torch.Tensor, target: Any, kind: Output) -> Seed:
    """The gradient of the explained number of each sample with respect to the model's output.

    The probability's gradient is taken in float64, since p (1 - p) is lost in float32 when the model is sure, and
    scaled to 1 for each sample, since it would underflow in half precision.

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
    if not isinstance(output, torch.Tensor):
        raise TypeError(f"The model must return a tensor of logits, not {type(output).__name__}.")
    if kind == "probability" and (output.ndim < 2 or output.shape[-1] < 2):
        raise ValueError("A model with one output has no softmax probability: pass output='logit'.")
    exact = torch.float32 if output.device.type == "mps" else torch.float64
    with torch.enable_grad():
        leaf = output.detach().to(exact).requires_grad_(True)
        score = leaf.softmax(-1) if kind == "probability" else leaf
        chosen = chosen_scores(score, target)
        gradient = torch.autograd.grad(chosen.sum(), leaf)[0]
    scale = gradient.abs().flatten(1).amax(1) if gradient.ndim > 1 else gradient.abs()
    safe = torch.where(scale > 0, scale, torch.ones_like(scale))
    return Seed(gradient / safe.reshape(-1, *[1] * (gradient.ndim - 1)), scale)


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
