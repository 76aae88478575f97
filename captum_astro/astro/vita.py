"""ViTA: a pre-trained model with astrocytes in one of its layers, for explanation only."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from captum_astro.astro.astrocytic_linear import Token, measured, modulate
from captum_astro.astro.layers import find_layer, linear_at, watched
from captum_astro.astro.layout import with_modulated
from captum_astro.functional.astrocyte import Counter, Modulation, Rescale
from captum_astro.layouts.base import Layout, add_adapter, layout_for, register_layout, remove_adapter
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.structure import Measured, Modulated
from captum_astro.layouts.unwrap import unwrapped

_LOCK = threading.Lock()


class _Suspended(threading.local):
    """Whether astrocytes are switched off in this thread."""

    on: bool = False


class _Running(threading.local):
    """State of a ViTA in one thread: how often it is open there, the number of images, whether the layer ran."""

    opened: int = 0
    images: int | None = None
    layer_ran: bool = False


_SUSPENDED = _Suspended()


class ViTA(nn.Module):
    """A model whose first self-attention is modulated by artificial astrocytes, without training.

    Call it, or pass it to any Captum method, to run the modulated model. Or use it as a context manager: inside, in
    this thread, the model itself is modulated; afterwards it is unchanged, bit for bit. No weight is changed or copied.

    Astrocytes monitor the class token of each image at the layer's input, or the mean of its tokens if the model has no
    class token at the front (for windowed attention, over all windows of the image; for a model without a layout
    always, because its tokens are unknown), and keep no state between images. With ``k < tau`` or
    ``alpha == beta == 1`` the output is the model's own, bit for bit. The modulated model serves explanation, not
    classification: its predictions differ. For several devices wrap it, ``DataParallel(ViTA(model))``: the context
    manager does not affect the threads of a ``DataParallel`` inside it.

    Source: arXiv 2505.21513, Eq. 4 to 9, as far as known; see `captum_astro.functional.astrocyte` for the equations and
    `Modulation` for the open questions.

    Args:
        model: Any model with the layer, from timm or your own, or a wrapper around one.
        k: Steps. The defaults of all five are the published best setting for Grad-CAM by SSIM.
        tau: The count at which an astrocyte acts.
        phi: The value above which an input neuron is active.
        alpha: The factor for active neurons at each step.
        beta: The factor for inactive neurons.
        layer: The linear layer, as a module or its dotted path. By default the output projection of the first
            attention, ``blocks.0.attn.proj`` in timm's ViTs: before it the class token is the same for every image, so
            nothing could depend on the image. If the attention has none, the ``mlp.fc1`` after it.
        token: ``"cls"``, ``"mean"``, or ``"auto"`` to choose by model.
        rescale: See `Modulation`.
        counter: See `Modulation`.
        feedback: See `Modulation`.

    Raises:
        ValueError: If a value is out of range, or the model has no such layer.
        TypeError: If the layer is not linear.

    Example:
        >>> import timm, torch
        >>> from captum.attr import Saliency
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> x = torch.rand(1, 3, 224, 224)
        >>> Saliency(ViTA(model)).attribute(x, target=281).shape
        torch.Size([1, 3, 224, 224])
        >>> with ViTA(model, k=4, tau=2):
        ...     logits = model(x)
    """

    def __init__(
        self,
        model: nn.Module,
        k: int = 6,
        tau: int = 3,
        phi: float = -0.5,
        alpha: float = 1.5,
        beta: float = 0.05,
        layer: nn.Module | str | None = None,
        *,
        token: Token = "auto",
        rescale: Rescale = "length",
        counter: Counter = "saturating",
        feedback: bool = False,
    ) -> None:
        super().__init__()
        self.model = unwrapped(model)
        self.modulation = Modulation(k, tau, phi, alpha, beta, rescale, counter, feedback)
        self.layer = find_layer(self.model, layer)
        if token not in ("auto", "cls", "mean"):
            raise ValueError(f"token must be 'auto', 'cls' or 'mean', not {token!r}.")
        self.token = watched(self.model, token)
        for other in self.model.modules():
            if isinstance(other, ViTA) and other.linear is self.linear:
                raise ValueError(f"{self.layer} is modulated already. Choose another layer for the second ViTA.")
        self.training = self.model.training
        self._explained = _explained_path(self.model)
        self._running = _Running()
        self._threads = 0  # number of threads in which it is open
        self._everywhere = False
        self._hooks = contextlib.ExitStack()

    @property
    def linear(self) -> nn.Linear:
        """The modulated layer.

        Raises:
            TypeError: If the model has since replaced it with something else.
        """
        return linear_at(self.model, self.layer)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The modulated model's output."""
        with self:
            return self.model(*args, **kwargs)

    def __enter__(self) -> ViTA:
        linear = self.linear
        for hook in linear._forward_hooks.values():
            other = getattr(hook, "__self__", None)
            if isinstance(other, ViTA) and other is not self and other._acts():
                raise ValueError(f"{self.layer} is modulated already, by another ViTA that is open.")
        with _LOCK:
            if not self._threads:
                self._install(linear)
            self._threads += not self._running.opened
        self._running.opened += 1
        return self

    def __exit__(self, *error: object) -> None:
        if not self._running.opened:
            raise RuntimeError("This ViTA was opened in another thread, and must be closed there.")
        self._running.opened -= 1
        if self._running.opened:
            return
        with _LOCK:
            self._threads -= 1
            if not self._threads:
                self._hooks.close()

    def __getstate__(self) -> dict[str, Any]:
        """A copy of an open one is a copy of the modulated model: permanently open, in every thread."""
        own = ("_running", "_threads", "_hooks")
        state = {name: value for name, value in self.__dict__.items() if name not in own}
        return state | {"_everywhere": self._everywhere or self._threads > 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._running, self._threads, self._hooks = _Running(), 0, contextlib.ExitStack()

    def _replicate_for_data_parallel(self) -> ViTA:
        replica: ViTA = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        replica._running, replica._threads, replica._hooks = _Running(), 0, contextlib.ExitStack()
        return replica

    @property
    def step(self) -> Modulated:
        """The modulated layer as a step of a layout."""
        return Modulated(self.linear, self._measure)

    def adapt_layout(self, layout: Layout) -> Layout:
        """The layers of the modulated model, in a thread where it is open."""
        return with_modulated(layout, self.step) if self._acts() else layout

    def extra_repr(self) -> str:
        """The layer and the rule."""
        return f"layer={self.layer!r}, token={self.token!r}, {self.modulation}"

    def _acts(self) -> bool:
        return (self._everywhere or self._running.opened > 0) and not _SUSPENDED.on

    def _install(self, linear: nn.Linear) -> None:
        model, hooks = self.model, self._hooks
        for module in {id(module): module for module in (model, *_stems(model))}.values():
            hooks.callback(module.register_forward_pre_hook(self._count, with_kwargs=True).remove)
        hooks.callback(model.register_forward_hook(self._demand).remove)
        hooks.callback(model.register_forward_hook(self._forget, always_call=True).remove)
        # registered first, so that other hooks see the modulated output
        hooks.callback(linear.register_forward_hook(self._modulate, prepend=True).remove)
        if self._explained is not None:
            explained = model.get_submodule(self._explained)
            add_adapter(explained, self.adapt_layout)
            hooks.callback(remove_adapter, explained, self.adapt_layout)

    def _measure(self, x: torch.Tensor) -> Measured:
        return Measured(*measured(x, self.linear, self.modulation, self.token, self._images(x)))

    def _images(self, x: torch.Tensor) -> int:
        """The number of images that these rows belong to."""
        return self._running.images or len(x)

    def _count(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        first = next((x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)), None)
        if self._acts() and first is not None and first.ndim:
            self._running.images = len(first)

    def _demand(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._acts() and not self._running.layer_ran:
            raise UnsupportedModelError(
                f"{self.layer} was not called: {type(self.model).__name__} reads its weight without running the layer, "
                f"or was compiled before, so it cannot be modulated. Choose another layer, or the model as it was "
                f"before torch.compile."
            )

    def _forget(self, module: nn.Module, args: Any, output: Any) -> None:
        self._running.images, self._running.layer_ran = None, False

    def _modulate(self, module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor | None:
        if not self._acts():
            return None
        self._running.layer_ran = True
        x, images = args[0], self._images(args[0])
        if len(x) % images or (self.token == "cls" and len(x) != images):
            raise UnsupportedModelError(
                f"{self.layer} received {len(x)} rows for {images} images, which are not their "
                f"{'tokens' if self.token == 'cls' else 'windows'}. Choose another layer"
                f"{', or token=' + repr('mean') if self.token == 'cls' else ''}."
            )
        return modulate(x, output, module, self.modulation, self.token, images)


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


def _explained_path(model: nn.Module) -> str | None:
    """The path of the model with a layout; None if there is none."""
    try:
        explained = layout_for(model).model
    except UnsupportedModelError:
        return None
    names: dict[nn.Module, str] = {module: name for name, module in model.named_modules()}
    return names[explained]


@register_layout(ViTA)
def _modulated_layout(vita: Any) -> Layout:
    return with_modulated(layout_for(vita.model), vita.step)
