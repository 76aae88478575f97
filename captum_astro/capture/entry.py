"""The images, patches or token ids that the explained model receives, possibly from a wrapper."""

from __future__ import annotations

import contextlib

import torch
import torch.nn.functional as F
from torch import nn

from captum_astro.capture.call import Call
from captum_astro.capture.hooks import Hooks
from captum_astro.layouts.base import Layout
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.walk import modules_of


class Entry:
    """The first inputs that reach a model, whichever of its methods a wrapper calls.

    ``forward_features`` and its like bypass the model's own hooks, but not those of its patch embedding.

    Args:
        model: The model.
        layout: Its layout; None if it has none, and reads images.

    Attributes:
        inputs: Images ``(B, C, H, W)``, patches ``(B, n, ...)`` or token ids ``(B, n)``; None before they are seen.
    """

    def __init__(self, model: nn.Module, layout: Layout | None = None) -> None:
        self.inputs: torch.Tensor | None = None
        self._model, self._dimensions = model, (4,) if layout is None else layout.dimensions

    def install(self, hooks: Hooks) -> None:
        """Note what the model receives."""
        for module in (self._model, *self._model.children()):
            hooks.before(module, self.note)

    def note(self, x: torch.Tensor) -> None:
        """An input of the model, or of a part of it."""
        if self.inputs is None and x.ndim in self._dimensions:
            self.inputs = x.detach()

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of the images; for texts and lists of patches, 1 and their length."""
        if self.inputs is None:
            return None
        shape = self.inputs.shape
        return (shape[-2], shape[-1]) if self._dimensions == (4,) else (1, shape[1])


def check_called_once(model: nn.Module, times: int) -> None:
    """Reject a model that a wrapper calls more than once, whose maps would belong to several images.

    Raises:
        UnsupportedModelError: If it was.
    """
    if times > 1:
        raise UnsupportedModelError(
            f"{type(model).__name__} was called {times} times in one pass. Explain one call at a time: pass the model "
            f"itself, and add up the maps of its inputs."
        )


def check_batch(model: nn.Module, received: int, images: int) -> None:
    """Reject a wrapper that makes several images of one, whose tokens belong to no image of the user's.

    Raises:
        UnsupportedModelError: If it does.
    """
    if received != images:
        raise UnsupportedModelError(
            f"{type(model).__name__} received {received} images for {images} outputs: a wrapper changes the batch. "
            f"Explain the model itself."
        )


class _Received(BaseException):
    """Ends a pass when the images have reached the model; no wrapper may catch it."""


class _Probe(Entry):
    def note(self, x: torch.Tensor) -> None:
        super().note(x)
        if self.inputs is not None:
            raise _Received


def check_unmoved(call: Call, explained: nn.Module) -> None:
    """Check that a wrapper hands each pixel on to its place, so that maps of the model are maps of the user's image.

    Smooth noise is sent through the wrapper, up to the model, and again with more noise added. Where the change arrives
    must follow from where it was made; the values and the resolution may differ.
    A wrapper with convolutions of its own is not checked: they mix neighbouring pixels.

    Args:
        call: The model and its inputs.
        explained: The model inside.

    Raises:
        UnsupportedModelError: If the wrapper crops, pads, mirrors, or otherwise moves the image.
    """
    given = call.inputs
    if call.model is explained or given.ndim != 4 or not given.is_floating_point():
        return
    inside = set(modules_of(explained))
    if any(isinstance(module, nn.Conv2d) for module in modules_of(call.model) if module not in inside):
        return
    low, high = given.aminmax()
    span = torch.where(high > low, high - low, torch.ones_like(high))
    ground, added = _smooth_noise(given, 0), _smooth_noise(given[:, :1], 1)
    before, after = (
        _received(call, explained, (low + span * image).to(given))
        for image in (0.2 + 0.1 * ground, 0.2 + 0.1 * ground + 0.7 * added)
    )
    if before is None or after is None or before.shape != after.shape or len(before) != len(given):
        return  # the pass itself says what is wrong
    if after.shape[-2:] != added.shape[-2:]:
        ground, added = (F.interpolate(x, after.shape[-2:], mode="bilinear", antialias=True) for x in (ground, added))
    if not _explains([after - before, ground], added):
        raise UnsupportedModelError(
            f"{type(call.model).__name__} moves the image before {type(explained).__name__} receives it (a crop, a "
            f"margin, a mirror image or the like), so a map would be laid over the wrong pixels. Apply this to the "
            f"image first, or ask for attribute_to='grid', the model's own patches."
        )


def _smooth_noise(like: torch.Tensor, seed: int) -> torch.Tensor:
    """Noise in [0, 1], the same each time, which survives a change of resolution."""
    batch, channels, *size = like.shape
    cells = [max(2, min(16, extent // 8)) for extent in size]
    noise = torch.rand(batch, channels, *cells, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, size, mode="bicubic").clamp(0, 1)


def _received(call: Call, explained: nn.Module, probe: torch.Tensor) -> torch.Tensor | None:
    entry = _Probe(explained)
    with torch.no_grad(), Hooks() as hooks:
        entry.install(hooks)
        with contextlib.suppress(_Received):
            call.run(probe.to(call.inputs.device))
    return entry.inputs


def _explains(found: list[torch.Tensor], added: torch.Tensor) -> bool:
    """Whether a cubic of what is found at each pixel explains 90 % of what was added there."""
    *parts, y = (tensor.detach().to("cpu", torch.float64).flatten(2).transpose(1, 2) for tensor in (*found, added))
    x = torch.cat(parts, 2)
    x = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True).clamp_min(1e-12)
    x = torch.cat([x, x**2, x**3], 2)  # a gamma or an activation bends the values
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    rest = y - x @ (torch.linalg.pinv(x.transpose(1, 2) @ x) @ (x.transpose(1, 2) @ y))
    return bool((rest.square().sum((1, 2)) <= 0.1 * y.square().sum((1, 2))).all())
