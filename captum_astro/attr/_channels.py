"""Activations (positions x channels) of one layer with their gradient, and their grid."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.layers import RmsNorm
from torch import nn

from captum_astro.attr._base import enlarged
from captum_astro.attr._contract import AttributeTo
from captum_astro.capture.activation import activation_and_gradient
from captum_astro.capture.call import Call
from captum_astro.functional.token_map import Grid
from captum_astro.layouts.base import Layout, layout_for
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.structure import AttentionBranch, Tap


@dataclass(frozen=True)
class ChannelMaps:
    """One layer of one forward and backward pass.

    Attributes:
        activation: ``(B, positions, channels)``, without the prefix tokens.
        gradient: The gradient of the explained output at the activation.
        output: The output of the model.
        grid: Rows and columns of the positions.
        prefix: The number of prefix tokens; None if the layer has a feature map.
        image_size: Size of the image that the model received.
        extent: The size in pixels that the grid covers.
    """

    activation: torch.Tensor
    gradient: torch.Tensor
    output: torch.Tensor
    grid: tuple[int, int]
    prefix: int | None
    image_size: tuple[int, int]
    extent: tuple[int, int]

    def shaped(self, cam: torch.Tensor, images: torch.Tensor, attribute_to: AttributeTo) -> torch.Tensor:
        """Convert one value per position ``(B, positions)`` to the requested form.

        Raises:
            ValueError: If tokens are requested of a feature map.
        """
        if attribute_to == "tokens":
            if self.prefix is None:
                raise ValueError("This layer has no tokens: use attribute_to='grid'.")
            return F.pad(cam, (self.prefix, 0)).to(images.dtype)
        return enlarged(cam.reshape(-1, 1, *self.grid), self.image_size, self.extent, images, attribute_to)


def channel_maps(call: Call, tap: Tap) -> ChannelMaps:
    """Run a model once, forward and back to one layer.

    Args:
        call: The model and its inputs.
        tap: The layer.

    Raises:
        UnsupportedModelError: If the layer has neither tokens nor a feature map.
        ValueError: If no gradient reaches its patches.
    """
    model, layout, shape = call.model, call.layout, call.inputs.shape
    seen = activation_and_gradient(call, tap)
    image_size = seen.image_size or (1 if len(shape) == 2 else shape[-2], shape[-1])
    if seen.value.ndim not in (3, 4):
        what = f"{type(tap.module).__name__} returns {tuple(seen.value.shape)}"
        raise UnsupportedModelError(f"{what}: no tokens and no feature map.")
    tap, mapped = _as_tokens(seen.value, tap, call, image_size)
    grid, prefix = (mapped, 0) if mapped else _token_grid(seen.value.shape[1], tap, call, image_size)
    if len(seen.value) != len(seen.output):
        raise UnsupportedModelError(
            f"{type(tap.module).__name__} returns {len(seen.value)} maps for {len(seen.output)} images: it works on "
            f"windows, or on several copies. Choose a layer outside of them."
        )
    flat, slopes = (tap.tokens(x)[:, prefix:] for x in (seen.value, seen.gradient))
    if (slopes == 0).flatten(1).all(1).any():
        raise ValueError(_no_gradient(model))
    extent = layout.extent(*image_size) if layout is not None else image_size
    return ChannelMaps(flat, slopes, seen.output, grid, None if mapped else prefix, image_size, extent)


def find_tap(model: nn.Module, layer: nn.Module | str | None) -> tuple[Layout | None, Tap]:
    """The model's layout, if it has one, and the tensor to read."""
    try:
        layout: Layout | None = layout_for(model)
    except UnsupportedModelError:
        layout = None
    if isinstance(layer, str):
        try:
            return layout, Tap(model.get_submodule(layer), "output")
        except AttributeError as error:
            raise ValueError(f"{type(model).__name__} has no layer {layer!r}.") from error
    if layer is not None:
        if all(module is not layer for module in model.modules()):
            raise ValueError(f"The {type(layer).__name__} given as layer is not one of {type(model).__name__}'s.")
        return layout, Tap(layer, "output")
    if layout is not None:
        last = [stage for stage in layout.stages if any(isinstance(b, AttentionBranch) for b in stage.branches)][-1]
        normalises = isinstance(last.stream.module, nn.LayerNorm | nn.RMSNorm | RmsNorm)
        return layout, Tap(last.stream.module, "output") if normalises else last.stream
    inside = timm_model(model)
    features = getattr(inside, "feature_info", None)
    if not features:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no layout and no timm feature_info: pass the layer, as a module or its path."
        )
    return None, Tap(inside.get_submodule(features[-1]["module"]), "output")


def timm_model(model: nn.Module) -> nn.Module:
    """The model itself, or the one inside a wrapper that describes its features."""
    return next((module for module in model.modules() if hasattr(module, "feature_info")), model)


def _channels_last(module: nn.Module, model: nn.Module) -> bool:
    """Determined by the type of the layer, otherwise by what timm says about the model."""
    if type(module).__name__.removesuffix("Fp32").endswith("2d") or isinstance(module, nn.GroupNorm):
        return False
    if isinstance(module, nn.LayerNorm | nn.Linear):
        return True
    return getattr(timm_model(model), "output_fmt", "NCHW") == "NHWC"


def _as_tokens(x: torch.Tensor, tap: Tap, call: Call, image_size: tuple[int, int]) -> tuple[Tap, Grid | None]:
    """How a feature map is flattened, and its rows and columns; None if the tensor is already tokens."""
    if x.ndim != 4:
        return tap, None
    if call.layout is not None and tuple(x.shape[1:3]) in call.layout.grids(*image_size):
        last = True
    elif call.layout is not None and tuple(x.shape[2:]) in call.layout.grids(*image_size):
        last = False
    else:
        last = _channels_last(tap.module, call.model)
    rows, columns = x.shape[1:3] if last else x.shape[2:]
    return replace(tap, channels="last" if last else "first"), (rows, columns)


def _token_grid(tokens: int, tap: Tap, call: Call, image_size: tuple[int, int]) -> tuple[Grid, int]:
    """Rows and columns for a number of tokens, and the number of prefix tokens before them."""
    if call.layout is not None:
        prefix = call.layout.num_prefix_tokens
        grids = call.layout.grids(*image_size)
        grid = next((grid for grid in grids if grid[0] * grid[1] + prefix == tokens), grids[0])
    else:
        prefix = int(cast(Any, getattr(timm_model(call.model), "num_prefix_tokens", 0)) or 0)
        rows = round(((tokens - prefix) * image_size[0] / image_size[1]) ** 0.5)
        grid = (rows, (tokens - prefix) // max(1, rows))
    if grid[0] * grid[1] + prefix != tokens:
        raise UnsupportedModelError(
            f"{type(tap.module).__name__} returns {tokens} tokens, which are not {prefix} prefix tokens and a grid of "
            f"{grid[0]} x {grid[1]}."
        )
    return grid, prefix


def _no_gradient(model: nn.Module) -> str:
    reason = "The gradient at the patches of this layer is zero: nothing reads them after it."
    with contextlib.suppress(UnsupportedModelError):
        _, default = find_tap(model, None)
        name = next((name for name, module in model.named_modules() if module is default.module), "")
        reason += f" A layer that works is {name!r}, the default."
    return f"{reason} With output='probability', a model that is certain has no gradient: use 'logit'."
