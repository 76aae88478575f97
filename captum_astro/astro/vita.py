"""ViTA: a pre-trained model with astrocytes in one of its layers, for explanation only."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from captum_astro.astro.astrocytic_linear import Token, modulate
from captum_astro.astro.layout import with_modulated
from captum_astro.functional.astrocyte import Counter, Modulation, Rescale
from captum_astro.layouts.base import Layout, adapted, layout_for, register_layout
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.structure import AttentionBranch, Linear, Modulated
from captum_astro.layouts.unwrap import unwrapped

# kept here, not on the module: a model may be copied while it is modulated
_LOCK = threading.Lock()
_HOOKS: dict[ViTA, list[RemovableHandle]] = {}
_LAYOUTS: dict[tuple[ViTA, int], AbstractContextManager[None]] = {}


class ViTA(nn.Module):
    """A model whose first self-attention is modulated by artificial astrocytes, without training.

    Call it, or hand it to any Captum method, and the modulated model runs. Or open it as a context: inside, in this
    thread, the model itself is modulated; after it the model is as it was, bit for bit. No weight is touched or copied.

    Astrocytes watch the class token of each image at the layer's input, or the mean of its tokens where a model has
    none (for windowed attention, over all windows of the image), and keep no state between images. Under ``k < tau`` or
    ``alpha == beta == 1`` the output is the model's own, bit for bit. The modulated model is made for explanation, not
    for classification: its predictions differ.

    Source: arXiv 2505.21513, Eq. 4 to 9, as far as known; `captum_astro.functional.astrocyte` has the equations and
    `Modulation` what is open about them.

    Args:
        model: Any model with the layer, timm's or your own, or a wrapper of one.
        k: Steps. The defaults of all five are the published best setting for Grad-CAM by SSIM.
        tau: The count at which an astrocyte acts.
        phi: The value above which an input neuron is active.
        alpha: The factor of active neurons, at each step.
        beta: The factor of inactive ones.
        layer: The linear layer, as a module or its dotted path. By default the output projection of the first
            attention, ``blocks.0.attn.proj`` in timm's ViTs: before it the class token is the same for every image, so
            nothing could depend on the image. Where the attention has none, ``mlp.fc1`` behind it.
        token: ``"cls"``, ``"mean"``, or by what the model has (``"auto"``).
        rescale: See `Modulation`.
        counter: See `Modulation`.
        feedback: See `Modulation`.

    Raises:
        ValueError: If a value is out of its range, or the model has no such layer.
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
            raise ValueError(f"token is 'auto', 'cls' or 'mean', not {token!r}.")
        self.token = token if token != "auto" else "cls" if has_class_token(self.model) else "mean"
        # by thread, as hooks are seen by all of them: how often it is open, how many images run, whether the layer did
        self._open: dict[int, int] = {}
        self._images: dict[int, int] = {}
        self._ran: set[int] = set()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The modulated model's output."""
        with self:
            return self.model(*args, **kwargs)

    def __enter__(self) -> ViTA:
        thread = threading.get_ident()
        with _LOCK:
            if not self._open:
                _HOOKS[self] = self._hook()
            self._open[thread] = self._open.get(thread, 0) + 1
            first = self._open[thread] == 1
        layout = _layout_of(self.model) if first else None
        if layout is not None:
            _LAYOUTS[self, thread] = adapted(layout.model, lambda found: with_modulated(found, self))
            _LAYOUTS[self, thread].__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        thread = threading.get_ident()
        with _LOCK:
            self._open[thread] -= 1
            if self._open[thread]:
                return
            del self._open[thread]
            if not self._open:
                for handle in _HOOKS.pop(self):
                    handle.remove()
        layout = _LAYOUTS.pop((self, thread), None)
        if layout is not None:
            layout.__exit__(None, None, None)

    def _hook(self) -> list[RemovableHandle]:
        return [
            self.model.register_forward_pre_hook(self._count, with_kwargs=True),
            self.model.register_forward_hook(self._demand),
            self.model.register_forward_hook(self._forget, always_call=True),
            # first, so that others see what it gives
            self.model.get_submodule(self.layer).register_forward_hook(self._modulate, prepend=True),
        ]

    def extra_repr(self) -> str:
        """The layer and the rule."""
        return f"layer={self.layer!r}, token={self.token!r}, {self.modulation}"

    def _count(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if threading.get_ident() in self._open:
            first = next((x for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)), None)
            if first is not None and first.ndim:
                self._images[threading.get_ident()] = len(first)

    def _demand(self, module: nn.Module, args: Any, output: Any) -> None:
        thread = threading.get_ident()
        if thread in self._open and thread not in self._ran:
            raise UnsupportedModelError(
                f"{self.layer} was not called: {type(self.model).__name__} reads its weight without running the layer, "
                f"so it cannot be modulated. Choose another layer."
            )

    def _forget(self, module: nn.Module, args: Any, output: Any) -> None:
        self._images.pop(threading.get_ident(), None)
        self._ran.discard(threading.get_ident())

    def _modulate(self, module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor | None:
        thread = threading.get_ident()
        if thread not in self._open:
            return None
        self._ran.add(thread)
        x, images = args[0], self._images.get(thread, len(args[0]))
        if len(x) % images or (self.token == "cls" and len(x) != images):
            raise UnsupportedModelError(
                f"{self.layer} is given {len(x)} rows for {images} images, which are not their "
                f"{'tokens' if self.token == 'cls' else 'windows'}. Choose another layer"
                f"{', or token=' + repr('mean') if self.token == 'cls' else ''}."
            )
        return modulate(x, output, module, self.modulation, self.token, images)


def find_layer(model: nn.Module, layer: nn.Module | str | None) -> str:
    """The dotted path of a linear layer of the model.

    Args:
        model: The model, or a wrapper of it.
        layer: The module, or its path in the model or in the model inside; None for the output projection of the first
            attention.

    Raises:
        ValueError: If there is none, or more than one.
        TypeError: If it is not linear.
    """
    modules = dict(model.named_modules())
    first = _first_projection(model)
    if layer is None:
        paths, what = [first] if first is not None else [], "Which layer projects the first attention is not known."
    elif isinstance(layer, str):
        paths = [layer] if layer in modules else [name for name in modules if name.endswith("." + layer)]
        what = f"{type(model).__name__} has {'several layers' if paths else 'no layer'} {layer!r}."
    else:
        paths = [name for name, module in modules.items() if module is layer]
        what = f"The {type(layer).__name__} given as layer is not one of {type(model).__name__}'s."
    if len(paths) != 1:
        raise ValueError(what + (f" Its first attention projects by {first!r}." if first else " Pass layer=."))
    found = modules[paths[0]]
    if not isinstance(found, nn.Linear):
        raise TypeError(f"{paths[0]} is a {type(found).__name__}; astrocytes modulate a torch.nn.Linear.")
    return paths[0]


def _first_projection(model: nn.Module) -> str | None:
    layout = _layout_of(model)
    if layout is None:
        names: Iterator[str] = (name for name, _ in model.named_modules() if name.endswith("attn.proj"))
        return next(names, None)
    branches = (branch for stage in layout.stages for branch in stage.branches)
    steps = next(branch for branch in branches if isinstance(branch, AttentionBranch)).steps
    stored = {_storage(step) for step in steps if isinstance(step, Linear | Modulated)}
    linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    projections = (name for name, linear in linears.items() if _storage(linear) in stored)
    # without a projection, the first layer that reads what attention gave
    following = (name for name in linears if name.endswith("mlp.fc1"))
    return next(projections, None) or next(following, None)


def _storage(of: Any) -> int:
    weight: torch.Tensor = of.module.weight if isinstance(of, Modulated) else of.weight
    return weight.untyped_storage().data_ptr()


def has_class_token(model: nn.Module) -> bool:
    """Whether the model, or one inside it, puts a class token before its patches."""
    return any(isinstance(getattr(module, "cls_token", None), nn.Parameter) for module in model.modules())


def _layout_of(model: nn.Module) -> Layout | None:
    try:
        return layout_for(model)
    except UnsupportedModelError:
        return None


@register_layout(ViTA)
def _modulated_layout(vita: Any) -> Layout:
    return with_modulated(layout_for(vita.model), vita)
