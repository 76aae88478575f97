"""Activations (positions x channels) of one layer with their gradient, and their places."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from captum_astro.attr._base import enlarged
from captum_astro.attr._contract import AttributeTo
from captum_astro.attr._default_layer import searched_tap
from captum_astro.attr._layer import find_tap, places_in, reorders
from captum_astro.capture.activation import activation_and_gradient
from captum_astro.capture.call import Call
from captum_astro.capture.target import LargestOutput
from captum_astro.functional.places import Places
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Tap


@dataclass(frozen=True)
class ChannelMaps:
    """One layer of one forward and backward pass.

    Attributes:
        activation: ``(B, positions, channels)``, without the prefix tokens.
        gradient: The gradient of the explained output at the activation.
        output: The output of the model.
        places: Where the positions are in the layer's output.
        tap: The layer.
        image_size: Size of the image that the model received.
        extent: The size in pixels that the grid covers.
    """

    activation: torch.Tensor
    gradient: torch.Tensor
    output: torch.Tensor
    places: Places
    tap: Tap
    image_size: tuple[int, int]
    extent: tuple[int, int]

    def shaped(self, cam: torch.Tensor, images: torch.Tensor, attribute_to: AttributeTo) -> torch.Tensor:
        """Convert one value per position ``(B, positions)`` to the requested form.

        Raises:
            ValueError: If tokens are requested of a feature map.
        """
        if attribute_to == "tokens":
            if self.places.prefix is None:
                raise ValueError("This layer has no tokens: use attribute_to='grid'.")
            return F.pad(cam, (self.places.prefix, 0)).to(images.dtype)
        return enlarged(cam.reshape(-1, 1, *self.places.grid), self.image_size, self.extent, images, attribute_to)


class NoGradientError(ValueError):
    """No gradient reaches the patches of a layer."""


# by the layer asked for and the shape of an image: what was read, as its path and kind, and its places
Known = dict[tuple[str | None, torch.Size], tuple[str, Literal["input", "output"], Places]]


def maps_of_layer(call: Call, layer: nn.Module | str | None, known: Known | None = None) -> ChannelMaps:
    """Run a model once, forward and back to a layer; without one, to the default or another that works.

    Args:
        call: The model and its inputs.
        layer: A module of the model, its path, or None.
        known: What earlier calls of the same model found; this one adds to it, so that a probe is made once.

    Raises:
        UnsupportedModelError: If the layer's output has no rows and columns that follow the image, or no layer works.
        ValueError: If the layer is not part of the model, or no gradient reaches its patches.
    """
    known = {} if known is None else known
    key = (_path(call, layer) if isinstance(layer, nn.Module) else layer), call.inputs.shape[1:]
    if key in known:
        path, at, places = known[key]
        return channel_maps(call, Tap(call.model.get_submodule(path), at), places)
    found = _found(call, layer)
    known[key] = _path(call, found.tap.module), found.tap.at, found.places
    return found


def _path(call: Call, module: nn.Module) -> str:
    names: dict[nn.Module, str] = {one: name for name, one in call.model.named_modules()}
    return names.get(module, "")


def _found(call: Call, layer: nn.Module | str | None) -> ChannelMaps:
    _, tap = find_tap(call.model, layer)
    try:
        if tap is None:
            raise UnsupportedModelError(f"{type(call.model).__name__} has no layer that timm's feature_info names.")
        return channel_maps(call, tap)
    except (UnsupportedModelError, NoGradientError) as error:
        other = _working_tap(call)
        if other is None or (tap is not None and other.module is tap.module):
            raise
        if layer is None:
            return channel_maps(call, other)
        raise type(error)(f"{error} A layer that works is {_path(call, other.module)!r}, the default.") from error


def channel_maps(call: Call, tap: Tap, places: Places | None = None) -> ChannelMaps:
    """Run a model once, forward and back to one layer.

    Args:
        call: The model and its inputs.
        tap: The layer.
        places: Where the positions are in its output, if that is known from an earlier pass.

    Raises:
        UnsupportedModelError: If the layer's output has no rows and columns that follow the image.
        NoGradientError: If no gradient reaches its patches.
    """
    layout, shape = call.layout, call.inputs.shape
    seen = activation_and_gradient(call, tap)
    image_size = seen.image_size or (1 if len(shape) == 2 else shape[-2], shape[-1])
    if len(seen.value) != len(seen.output):
        raise UnsupportedModelError(
            f"{type(tap.module).__name__} returns {len(seen.value)} maps for {len(seen.output)} images: it works on "
            f"windows, or on several copies. Choose a layer outside of them."
        )
    places = places or places_in(call, tap, tuple(seen.value.shape), image_size)
    flat, slopes = places.tokens(seen.value), places.tokens(seen.gradient)
    if (slopes == 0).flatten(1).all(1).any():
        raise NoGradientError(
            "The gradient at the patches of this layer is zero: nothing reads them after it. With "
            "output='probability', a model that is certain has no gradient: use 'logit'."
        )
    extent = layout.extent(*image_size) if layout is not None else image_size
    return ChannelMaps(flat, slopes, seen.output, places, tap, image_size, extent)


def _working_tap(call: Call) -> Tap | None:
    """The default layer if its maps can be computed, or another; tried on the largest output of each image."""
    call = replace(call, target=LargestOutput())
    if call.layout is None or reorders(call.layout):
        return searched_tap(call)
    _, tap = find_tap(call.model, None)
    with contextlib.suppress(UnsupportedModelError, NoGradientError):
        return None if tap is None else channel_maps(call, tap).tap
    return None
