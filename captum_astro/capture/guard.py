"""What a pass may change of a model: nothing, because it runs a private copy."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from captum_astro.capture.explaining import explaining
from captum_astro.capture.replica import Replica
from captum_astro.layouts.base import innermost
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.unwrap import unwrapped
from captum_astro.layouts.walk import modules_of


@contextlib.contextmanager
def private(model: nn.Module, dtype: torch.dtype | None = None) -> Iterator[Replica]:
    """A copy of a model to explain; the model itself can be run and trained by other threads in the meantime.

    One thread at a time explains a model, alone or in wrappers, because the user's own code in it may keep something
    from one layer to another. In train mode the state of the random number generators is restored afterwards.

    Args:
        model: The user's model, compiled or in a DataParallel as it may be.
        dtype: The least precision in which it is run; its own by default.

    Raises:
        TypeError: If it is not a module.
        UnsupportedModelError: If its layers are hidden or recomputed, or its parameters are inference tensors, which
            autograd cannot use.
    """
    model = unwrapped(model)
    check_parameters(model)
    with explaining(innermost(model)), contextlib.ExitStack() as undo:
        if any(module.training for module in modules_of(model)):
            undo.enter_context(torch.random.fork_rng())
        with torch.inference_mode(False):
            replica = Replica(model, dtype)
        keep_in_order(replica.model)
        yield replica


def check_parameters(model: nn.Module) -> None:
    """Reject a model whose parameters autograd cannot use.

    Raises:
        UnsupportedModelError: If they are inference tensors.
    """
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise UnsupportedModelError(
            f"{type(model).__name__} was created or loaded under torch.inference_mode(): autograd cannot use its "
            f"parameters. Load it outside."
        )


def keep_in_order(model: nn.Module) -> None:
    """Have the gradients at a copy's batch norms be right, whatever PyTorch's version."""
    for module in modules_of(model):
        if isinstance(module, _BatchNorm):
            module.register_forward_hook(_ask_in_order)


def _ask_in_order(module: nn.Module, args: Any, output: torch.Tensor) -> None:
    """Have the gradient at a batch norm stored in order: PyTorch's own is wrong where one image's is transposed.

    In eval mode, on a CPU, in PyTorch 2.6 to 2.14.
    """
    if output.requires_grad:
        output.register_hook(torch.Tensor.contiguous)
