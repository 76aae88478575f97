"""The module to explain, without the wrappers around it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.walk import modules_of


def unwrapped(forward_func: Any) -> nn.Module:
    """The module itself, without DataParallel or a compiler wrapper.

    Args:
        forward_func: The user's model.

    Raises:
        TypeError: If it is not a `torch.nn.Module`.
        UnsupportedModelError: If it is a ScriptModule, or recomputes its layers in the backward pass.
    """
    model = forward_func
    while True:
        if (code := python_code(model)) is not None:
            model = code
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            break
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"The model must be a torch.nn.Module, so that its layers can be seen, not {type(model).__name__}."
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise UnsupportedModelError("A ScriptModule hides its layers. Pass the Python model that it was compiled from.")
    for module in modules_of(model):
        if _set(module, "grad_checkpointing"):
            raise UnsupportedModelError(
                f"{_name(module, model)} recomputes its layers in the backward pass, where they cannot be "
                f"captured. Call model.set_grad_checkpointing(False)."
            )
        if _set(module, "gradient_checkpointing") and module.training:  # Hugging Face's
            raise UnsupportedModelError(
                f"{_name(module, model)} recomputes its layers in the backward pass, where they cannot be "
                f"captured. Call model.gradient_checkpointing_disable(), or model.eval()."
            )
    return model


def _set(module: nn.Module, name: str) -> bool:
    """Whether an attribute is True; a module's own `getattr` takes long to say that there is none."""
    return vars(module).get(name, getattr(type(module), name, None)) is True


def _name(part: nn.Module, model: nn.Module) -> str:
    """The path of a module in the model; the class of the model itself."""
    return next((name for name, module in model.named_modules() if module is part and name), type(part).__name__)


def python_code(module: Any) -> nn.Module | None:
    """The module that a compiled one was made from; None if it is none, though a ``__getattr__`` of its may claim it.

    Args:
        module: Any part of a user's model.
    """
    if not isinstance(module, nn.Module) or isinstance(module, torch.jit.ScriptModule):
        return None
    return module._modules.get("_orig_mod")
