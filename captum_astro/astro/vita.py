"""ViTA: a pre-trained model with astrocytes in one of its layers, for explanation only."""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import nn

from captum_astro.astro.astrocytic_linear import Token
from captum_astro.astro.layers import find_layer, linear_at, watched
from captum_astro.astro.layout import with_modulated
from captum_astro.astro.opened import Opened, opened_on
from captum_astro.capture.replica import Replica
from captum_astro.functional.astrocyte import Counter, Modulation, Rescale
from captum_astro.layouts.base import Layout, layout_for, register_layout
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Measured, Modulated
from captum_astro.layouts.unwrap import unwrapped


class _Openings(threading.local):
    """The openings of a ViTA in one thread, the innermost last; None where it was open already."""

    def __init__(self) -> None:
        self.stack: list[Opened | None] = []


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
        UnsupportedModelError: If no layer is given and that of the first attention is not known.

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
        self.explained = _explained_path(self.model)
        self._openings = _Openings()
        self._identity = object()  # what copies of its modules have in common

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
        before = opened_on(linear)
        if before is not None and before.vita._identity is not self._identity:
            raise ValueError(f"{self.layer} is modulated already, by another ViTA that is open.")
        opened = Opened(self) if before is None else None
        self._openings.stack.append(opened)
        if opened is not None:
            opened.install(linear)
        return self

    def __exit__(self, *error: object) -> None:
        if not self._openings.stack:
            raise RuntimeError("This ViTA was opened in another thread, and must be closed there.")
        opened = self._openings.stack.pop()
        if opened is not None:
            opened.close()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_openings"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._openings = _Openings()

    @property
    def step(self) -> Modulated:
        """The modulated layer as a step of a layout."""
        return Modulated(self.linear, self._measure)

    def extra_repr(self) -> str:
        """The layer and the rule."""
        return f"layer={self.layer!r}, token={self.token!r}, {self.modulation}"

    def _measure(self, x: torch.Tensor) -> Measured:
        opened = opened_on(self.linear) or Opened(self)
        return opened.measure(self.linear, x)


def _explained_path(model: nn.Module) -> str | None:
    """The path of the model with a layout; None if there is none."""
    try:
        copy = Replica(model).model
        explained = layout_for(copy).model
    except UnsupportedModelError:
        return None
    names: dict[nn.Module, str] = {module: name for name, module in copy.named_modules()}
    return names[explained]


@register_layout(ViTA)
def _modulated_layout(vita: Any) -> Layout:
    return with_modulated(layout_for(vita.model), vita.step)
