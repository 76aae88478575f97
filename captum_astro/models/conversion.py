"""timm's conversions of published weights: other names, positions and patches of another size."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from captum_astro.models.checkpoint import Tensors

Convert = Callable[[Tensors], Tensors]


def conversions(model: nn.Module, name: str) -> list[Convert]:
    """The functions that timm passes published weights of a model's family through.

    Each returns new tensors; if it does not know the names it receives, these are without meaning, or none. Whether
    they fit the model remains to be checked.

    Args:
        model: The model.
        name: Its timm name.
    """
    if "radio" in name:  # timm resamples these in a way of its own
        return []
    for kind in type(model).__mro__:
        found = vars(sys.modules[kind.__module__])
        functions = [value for key, value in found.items() if key.startswith("checkpoint_filter_fn")]
        if functions:
            return [partial(_call, function, model, _options(function, name)) for function in functions]
    return []


def _options(function: Callable[..., Any], name: str) -> dict[str, Any]:
    """The arguments that timm gives for this model, after the weights."""
    options: dict[str, Any] = {"adapt_layer_scale": True}  # DeiT III
    if "flexi" in name:
        options |= {"interpolation": "bilinear", "antialias": False}
    known = inspect.signature(function).parameters
    return {key: value for key, value in options.items() if key in known}


def _call(function: Callable[..., Any], model: nn.Module, options: dict[str, Any], tensors: Tensors) -> Tensors:
    if any("pre_logits" in key for key in tensors):  # timm drops this layer, which the outputs depend on
        return {}
    copies = {key: value.clone() for key, value in tensors.items()}  # some conversions work in place
    try:
        found = function(copies, model, **options)
    except Exception:  # names or shapes that it does not know
        return {}
    return {key: value for key, value in found.items() if isinstance(value, torch.Tensor)}
