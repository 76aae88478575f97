"""An open ViTA: the hooks by which one thread runs a modulated layer."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from captum_astro.astro.astrocytic_linear import measured, modulate
from captum_astro.astro.layout import with_modulated
from captum_astro.layouts.base import Layout, add_adapter, remove_adapter
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Measured, Modulated

if TYPE_CHECKING:
    from captum_astro.astro.vita import ViTA


class _Suspended(threading.local):
    """Whether astrocytes are switched off in this thread."""

    on: bool = False


class _Running(threading.local):
    """One thread's pass through the model: the number of images, and whether the layer ran."""

    images: int | None = None
    layer_ran: bool = False


_SUSPENDED = _Suspended()


class Opened:
    """The hooks of a ViTA on its model, which act in the thread that made them.

    A copy of the model that this thread makes is modulated for good, in every thread.

    Args:
        vita: The ViTA to open.
    """

    def __init__(self, vita: ViTA) -> None:
        self.vita = vita
        self._thread: int | None = threading.get_ident()
        self._running, self._hooks = _Running(), contextlib.ExitStack()

    def __getstate__(self) -> dict[str, Any]:
        return {"vita": self.vita, "_thread": None if self.acts() else -1}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._running, self._hooks = _Running(), contextlib.ExitStack()

    def acts(self) -> bool:
        """Whether the layer is modulated in this thread."""
        return self._thread in (None, threading.get_ident()) and not _SUSPENDED.on

    def install(self, linear: nn.Linear) -> None:
        """Modulate the layer."""
        model, hooks = self.vita.model, self._hooks
        for module in {id(module): module for module in (model, *_stems(model))}.values():
            hooks.callback(module.register_forward_pre_hook(self._count, with_kwargs=True).remove)
        hooks.callback(model.register_forward_hook(self._demand).remove)
        hooks.callback(model.register_forward_hook(self._forget, always_call=True).remove)
        # registered first, so that other hooks see the modulated output
        hooks.callback(linear.register_forward_hook(self._modulate, prepend=True).remove)
        if self.vita.explained is not None:
            explained = model.get_submodule(self.vita.explained)
            add_adapter(explained, self._adapt)
            hooks.callback(remove_adapter, explained, self._adapt)

    def close(self) -> None:
        """Remove the hooks."""
        self._hooks.close()

    def measure(self, linear: nn.Linear, x: torch.Tensor) -> Measured:
        """The effect on a layer, the model's or that of a copy, from its input."""
        return Measured(*measured(x, linear, self.vita.modulation, self.vita.token, self._images(x)))

    def _adapt(self, layout: Layout) -> Layout:
        """The layers of the modulated model, or of a copy of it."""
        assert self.vita.explained is not None
        prefix = self.vita.explained + "." if self.vita.explained else ""
        if not self.acts() or not self.vita.layer.startswith(prefix):
            return layout
        linear = layout.model.get_submodule(self.vita.layer.removeprefix(prefix))
        assert isinstance(linear, nn.Linear)
        return with_modulated(layout, Modulated(linear, partial(self.measure, linear)))

    def _images(self, x: torch.Tensor) -> int:
        """The number of images that these rows belong to."""
        return self._running.images or len(x)

    def _count(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        first = next((x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)), None)
        if self.acts() and first is not None and first.ndim:
            self._running.images = len(first)

    def _demand(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.acts() and not self._running.layer_ran:
            raise UnsupportedModelError(
                f"{self.vita.layer} was not called: {type(module).__name__} reads its weight without running the "
                f"layer, or was compiled before, so it cannot be modulated. Choose another layer, or the model as it "
                f"was before torch.compile."
            )

    def _forget(self, module: nn.Module, args: Any, output: Any) -> None:
        if self.acts():
            self._running.images, self._running.layer_ran = None, False

    def _modulate(self, module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor | None:
        if not self.acts():
            return None
        self._running.layer_ran = True
        token, x, images = self.vita.token, args[0], self._images(args[0])
        if len(x) % images or (token == "cls" and len(x) != images):
            raise UnsupportedModelError(
                f"{self.vita.layer} received {len(x)} rows for {images} images, which are not their "
                f"{'tokens' if token == 'cls' else 'windows'}. Choose another layer"
                f"{', or token=' + repr('mean') if token == 'cls' else ''}."
            )
        return modulate(x, output, module, self.vita.modulation, token, images)


def opened_on(linear: nn.Module) -> Opened | None:
    """What modulates a layer in this thread."""
    owners = (getattr(hook, "__self__", None) for hook in tuple(linear._forward_hooks.values()))
    return next((owner for owner in owners if isinstance(owner, Opened) and owner.acts()), None)


@contextlib.contextmanager
def unmodulated() -> Iterator[None]:
    """While open, astrocytes are switched off in this thread."""
    before, _SUSPENDED.on = _SUSPENDED.on, True
    try:
        yield
    finally:
        _SUSPENDED.on = before


def _stems(model: nn.Module) -> list[nn.Module]:
    """The module that receives the images first, even if the model's parts are called one by one."""
    stems = (getattr(module, "patch_embed", None) for module in model.modules())
    return [stem for stem in stems if isinstance(stem, nn.Module)][:1]
