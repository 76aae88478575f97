"""Whether a model's output is random, as in train mode."""

from __future__ import annotations

from timm.layers import DropPath, PatchDropout
from torch import nn

from captum_astro.layouts.walk import modules_of


def draws(model: nn.Module) -> bool:
    """Whether the output is random, or depends on the rest of the batch."""
    return any(module.training and _is_random(module) for module in modules_of(model))


def check_eval(model: nn.Module) -> None:
    """Raise an error for a model in train mode, whose scores would be random.

    Raises:
        ValueError: If the model is in train mode.
    """
    if draws(model):
        raise ValueError(f"{type(model).__name__} is in train mode. Call model.eval() first.")


def _is_random(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    return isinstance(module, DropPath | PatchDropout | nn.modules.batchnorm._BatchNorm)
