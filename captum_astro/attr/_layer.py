"""The layer that Grad-CAM reads, and where the places of the image are in its output."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import RmsNorm
from torch import nn

from captum_astro.capture.call import Call
from captum_astro.capture.probe import GAINS, SAMPLES, Reached, probe
from captum_astro.functional.places import Places, find_places
from captum_astro.layouts.base import Layout, layout_for
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Tap
from captum_astro.layouts.structure import AttentionBranch


def find_tap(model: nn.Module, layer: nn.Module | str | None) -> tuple[Layout | None, Tap | None]:
    """The model's layout, and the tensor to read; None for no layout, and if timm's default does not exist."""
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
    stages = [] if layout is None or reorders(layout) else layout.stages
    attended = [stage for stage in stages if any(isinstance(b, AttentionBranch) for b in stage.branches)]
    if attended:
        last = attended[-1]
        normalises = isinstance(last.stream.module, nn.LayerNorm | nn.RMSNorm | RmsNorm)
        return layout, Tap(last.stream.module, "output") if normalises else last.stream
    if layout is None and not getattr(timm_model(model), "feature_info", None):
        raise UnsupportedModelError(
            f"{type(model).__name__} has no layout and no timm feature_info: pass the layer, as a module or its path."
        )
    return layout, feature_tap(model)


def reorders(layout: Layout) -> bool:
    """Whether the model keeps its tokens in another order than row by row, as Hiera does."""
    return any(tap.arrange is not None for tap in (layout.final_stream, *(stage.stream for stage in layout.stages)))


def timm_model(model: nn.Module) -> nn.Module:
    """The model itself, or the one inside a wrapper that describes its features."""
    return next((module for module in model.modules() if "feature_info" in vars(module)), model)


def feature_tap(model: nn.Module) -> Tap | None:
    """The last layer in timm's ``feature_info``; None if there is no such module."""
    inside = timm_model(model)
    modules: dict[str, nn.Module] = dict(inside.named_modules())
    features: Any = getattr(inside, "feature_info", None)
    module = modules.get(features[-1]["module"]) if features else None
    return None if module is None else Tap(module, "output")


def places_in(call: Call, tap: Tap, shape: tuple[int, ...], image_size: tuple[int, int]) -> Places:
    """Where the places are in a layer's output: known from the layout, or shown by a probe; never assumed.

    Args:
        call: The model and its inputs.
        tap: The layer.
        shape: The shape of its output.
        image_size: Height and width of the image that the model received.

    Raises:
        UnsupportedModelError: If the output has no grid of places in row-major order.
    """
    name = type(tap.module).__name__
    if len(shape) not in (3, 4):
        raise UnsupportedModelError(f"{name} returns {shape}: no tokens and no feature map.")
    found = None if call.layout is None else _declared(call.layout, tap, shape, image_size)
    if found is None and call.inputs.ndim == 4:
        found = _probed(call, tap, shape)
    if found is None:
        raise UnsupportedModelError(
            f"{name} returns {shape}, in which no rows and columns of the image can be found: a probe shows no axes, "
            f"or no tokens after prefix tokens, that follow the image row by row."
        )
    return found


def _declared(layout: Layout, tap: Tap, shape: tuple[int, ...], image_size: tuple[int, int]) -> Places | None:
    """What the layout says of an output; None if it does not decide, as for a head's queries or a window."""
    if reorders(layout):
        return None
    grids, prefix = layout.grids(*image_size), layout.num_prefix_tokens
    attentions = [b for stage in layout.stages for b in stage.branches if isinstance(b, AttentionBranch)]
    around = [branch for branch in attentions if any(tap.module is inside for inside in branch.module.modules())]
    if any(branch.outputs or branch.sources for branch in around) and tap.at == "output":
        return None
    if len(shape) == 3:
        return next((Places(2, (r, c), prefix) for r, c in grids if r * c + prefix == shape[1]), None)
    last, first = shape[1:3] in grids, shape[2:] in grids
    if around or last == first:
        return None
    return Places(3, (shape[1], shape[2]), None) if last else Places(1, (shape[2], shape[3]), None)


def _probed(call: Call, tap: Tap, shape: tuple[int, ...]) -> Places | None:
    """What a probe shows of an output of this shape."""
    found: list[torch.Tensor] = []

    def note(tap: Tap, x: torch.Tensor) -> None:
        found.append(x)
        raise Reached

    for gain in GAINS:
        found.clear()
        probe(call, timm_model(call.model) if call.layout is None else call.layout.model, [tap], note, gain)
        if found and len(found[0]) == SAMPLES and found[0].shape[1:] == shape[1:]:
            places = find_places(found[0])
            if places is not None:
                return places
    return None
