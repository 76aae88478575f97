"""A model as it is explained in the middle of its training, and left as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from captum_astro.layouts.unwrap import unwrapped
from captum_astro.training.checkpoint import random_state, set_random_state

_RECOMPUTING = "grad_checkpointing"  # timm's flag


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[nn.Module]:
    """A model in eval mode, outside autocast and without recomputed layers; everything is restored at the end.

    Modes are set on each module: ``train`` and ``eval`` may be overridden. The generators of torch, NumPy and Python
    get their states back.

    Args:
        model: The model, compiled or in a DistributedDataParallel as it may be.

    Returns:
        The module inside, in a context.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Dropout()).train()
        >>> with undisturbed(model) as inside:
        ...     inside.training, inside[1].training
        (False, False)
        >>> model.training, model[1].training
        (True, True)
    """
    modules = list(model.modules())
    training = [module.training for module in modules]
    recomputing = [module for module in modules if getattr(module, _RECOMPUTING, False) is True]
    generators = random_state()
    device = next((parameter.device.type for parameter in model.parameters()), "cpu")
    try:
        for module in modules:
            module.training = False
        for module in recomputing:
            setattr(module, _RECOMPUTING, False)
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device, enabled=False):
            yield unwrapped(model)
    finally:
        for module, mode in zip(modules, training, strict=True):
            module.training = mode
        for module in recomputing:
            setattr(module, _RECOMPUTING, True)
        set_random_state(generators)
