"""A layer of which Grad-CAM can be computed, found by trying."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from captum_astro.attr._layer import feature_tap, timm_model
from captum_astro.capture.call import Call
from captum_astro.capture.hooks import Hooks
from captum_astro.capture.probe import SAMPLES, probe
from captum_astro.capture.target import LargestOutput
from captum_astro.functional.places import Places, find_places
from captum_astro.layouts.steps import Tap


def searched_tap(call: Call) -> Tap | None:
    """A layer whose output is a grid of places, and whose places receive a gradient; None if there is none.

    It is the last layer in timm's ``feature_info`` if that is one, otherwise the last norm or block.
    """
    modules = list(timm_model(call.model).modules())
    places = _grids(call, modules)
    gradients = _gradients(call, list(places))
    read = [m for m, where in places.items() if m in gradients and where.tokens(gradients[m]).any()]
    feature = feature_tap(call.model)
    if feature is not None and feature.module in read:
        return feature
    return next((Tap(module, "output") for module in reversed(read) if _is_norm_or_block(module)), None)


def _grids(call: Call, modules: list[nn.Module]) -> dict[nn.Module, Places]:
    """The modules that a probe shows to return a grid of more than one place, in the order in which they finish."""
    found: dict[nn.Module, Places] = {}
    seen: set[nn.Module] = set()

    def note(tap: Tap, x: torch.Tensor) -> None:
        places = find_places(x) if len(x) == SAMPLES and tap.module not in seen else None
        found.pop(tap.module, None)
        seen.add(tap.module)  # a module that runs twice has no single output
        if places is not None and max(places.grid) > 1:
            found[tap.module] = places

    probe(call, timm_model(call.model), [Tap(module, "output") for module in modules], note)
    return found


def _gradients(call: Call, modules: list[nn.Module]) -> dict[nn.Module, torch.Tensor]:
    """The gradient of each image's largest output at the modules' outputs, where there is one."""
    seen: dict[nn.Module, torch.Tensor] = {}

    def note(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        seen[module] = x if x.requires_grad else x.requires_grad_(True)
        return x.clone()  # later layers may modify it in place

    with torch.inference_mode(False), torch.enable_grad(), Hooks() as hooks:
        for module in modules:
            hooks.after(module, partial(note, module))
        score = LargestOutput().scores(call.run()).sum()
        if not seen or not score.requires_grad:
            return {}
        found = torch.autograd.grad(score, list(seen.values()), allow_unused=True)
    return {module: gradient for module, gradient in zip(seen, found, strict=True) if gradient is not None}


def _is_norm_or_block(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__ or any(True for _ in module.children())
