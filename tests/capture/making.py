"""A call of a small model, as the methods make it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from captum_astro.capture.call import Call
from captum_astro.capture.target import Output, Target
from captum_astro.layouts.base import layout_for


def call_of(model: nn.Module, x: torch.Tensor, target: Any = 1, output: Output = "logit") -> Call:
    """A call of the model itself, with its layout; the model is one's own, so no copy is needed."""
    return Call(model.requires_grad_(False), x, Target(target, output), (), layout_for(model))
