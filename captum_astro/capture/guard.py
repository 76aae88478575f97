"""Everything that a pass changes on a model, and restores."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Iterator

import torch
from torch import nn

from captum_astro.layouts.errors import UnsupportedModelError

_LOCKS: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_LOCKS_GUARD = threading.Lock()


@contextlib.contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Freeze a model's parameters for one pass, and restore its state afterwards, even after an error.

    Restored are ``requires_grad`` of the parameters, timm's ``fused_attn`` flags (set during the pass, so that no n x n
    map is built), and in train mode the buffers and the state of the random number generators. Only one thread at a
    time works on a model, because the flags are shared.

    Args:
        model: The module to run.

    Raises:
        UnsupportedModelError: If its parameters are inference tensors, which autograd cannot use.
    """
    modules, parameters = list(model.modules()), list(model.parameters())
    if any(parameter.is_inference() for parameter in parameters):
        raise UnsupportedModelError(
            f"{type(model).__name__} was created or loaded under torch.inference_mode(): autograd cannot use its "
            f"parameters. Load it outside."
        )
    with _LOCKS_GUARD:
        lock = _LOCKS.setdefault(model, threading.RLock())
    with lock, contextlib.ExitStack() as undo:
        for parameter in parameters:
            if parameter.requires_grad:
                parameter.requires_grad_(False)
                undo.callback(parameter.requires_grad_, True)
        for module in modules:
            if getattr(module, "fused_attn", None) is False:
                undo.callback(setattr, module, "fused_attn", False)
                setattr(module, "fused_attn", True)  # noqa: B010  (Module types every attribute as a tensor)
        if any(getattr(module, "_compiled_call_impl", None) or _is_compiled(module) for module in modules):
            undo.enter_context(torch.compiler.set_stance("force_eager"))  # compiled code hides its layers
        if any(module.training for module in modules):
            undo.enter_context(torch.random.fork_rng())
            saved = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
            undo.callback(_restore, saved)
        yield


def _is_compiled(module: nn.Module) -> bool:
    return hasattr(module, "_orig_mod")


def _restore(saved: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    with torch.no_grad():
        for buffer, before in saved:
            buffer.copy_(before)
