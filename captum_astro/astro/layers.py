"""Which linear layer astrocytes modulate, and which token they monitor."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from captum_astro.astro.astrocytic_linear import Token
from captum_astro.capture.replica import Replica
from captum_astro.layouts.base import Layout, layout_for
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Linear, Modulated
from captum_astro.layouts.structure import AttentionBranch
from captum_astro.layouts.unwrap import unwrapped

_CLASS_TOKENS = ("cls_token", "class_token", "class_embedding")  # as libraries name the parameter


def find_layer(model: nn.Module, layer: nn.Module | str | None) -> str:
    """The dotted path of a linear layer of the model.

    Args:
        model: The model, or a wrapper around it.
        layer: The module, or its path in the model or in the wrapped model; None for the output projection of the first
            attention.

    Raises:
        UnsupportedModelError: If no layer is given and that of the first attention is not known.
        ValueError: If there is none, or more than one.
        TypeError: If it is not linear.
    """
    modules = dict(model.named_modules())
    first = _first_projection(model)
    if layer is None:
        if first is None:
            raise UnsupportedModelError(
                f"Which linear layer projects the first attention of {type(model).__name__} is not known. Pass the "
                f"layer that astrocytes are to modulate, as a module or its path."
            )
        paths, what = [first], ""
    elif isinstance(layer, str):
        paths = [layer] if layer in modules else [name for name in modules if name.endswith("." + layer)]
        what = f"{type(model).__name__} has {'several layers' if paths else 'no layer'} {layer!r}."
    else:
        paths = [name for name, module in modules.items() if module is layer]
        what = f"The {type(layer).__name__} given as layer is not one of {type(model).__name__}'s."
    if len(paths) != 1:
        raise ValueError(what + (f" Its first attention projects by {first!r}." if first else " Pass layer=."))
    path = paths[0].replace("_orig_mod.", "")  # leads through a compiled module too
    linear_at(model, path)
    return path


def find_layers(model: nn.Module, pattern: str) -> list[str]:
    """The paths of all linear layers that match a pattern, in the order of the model; a path is its own pattern.

    Args:
        model: The model, or a wrapper around it.
        pattern: A path, or one with ``*`` (any characters, dots among them), ``?`` or ``[0-2]``, as in `fnmatch`.

    Raises:
        ValueError: If none matches; and as `find_layer` for a path.
        TypeError: As `find_layer` for a path.

    Example:
        >>> import timm
        >>> find_layers(timm.create_model("test_vit"), "blocks.[0-1].attn.*")
        ['blocks.0.attn.qkv', 'blocks.0.attn.proj', 'blocks.1.attn.qkv', 'blocks.1.attn.proj']
    """
    if not any(sign in pattern for sign in "*?["):
        return [find_layer(model, pattern)]
    inner = unwrapped(model)
    paths = [name for name, module in inner.named_modules() if isinstance(module, nn.Linear)]
    forms = (pattern, f"*.{pattern}")  # in a wrapper, the path of the model inside will do
    found: list[str] = next(filter(None, ([path for path in paths if fnmatchcase(path, form)] for form in forms)), [])
    if not found:
        shown = ", ".join(paths[:4]) + (", ..." if len(paths) > 4 else "")
        raise ValueError(f"No linear layer of {type(inner).__name__} matches {pattern!r}. It has {shown or 'none'}.")
    return found


def linear_at(model: nn.Module, path: str) -> nn.Linear:
    """The linear layer at a path.

    Raises:
        TypeError: If the module there is something else.
    """
    try:
        found: nn.Module | None = model.get_submodule(path)
    except AttributeError:
        found = None
    if not isinstance(found, nn.Linear):
        raise TypeError(
            f"{path} is a {type(found).__name__}; astrocytes modulate a torch.nn.Linear. Merge an adapter first: "
            f"merge_and_unload() in peft."
        )
    return found


def _first_projection(model: nn.Module) -> str | None:
    model = Replica(model).model  # whose layers have their weights as parameters, each in one place
    layout = _layout_of(model)
    if layout is None:
        linear: Iterator[str] = (name for name, module in model.named_modules() if isinstance(module, nn.Linear))
        names = (name for name in linear if name.endswith("attn.proj"))
        return next(names, None)
    branches = (branch for stage in layout.stages for branch in stage.branches)
    steps = next(branch for branch in branches if isinstance(branch, AttentionBranch)).steps
    stored = {_storage(step) for step in steps if isinstance(step, Linear | Modulated)}
    linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    projections = (name for name, linear in linears.items() if _storage(linear) in stored)
    # without a projection, the first layer that reads the attention output
    following = (name for name in linears if name.endswith("mlp.fc1"))
    return next(projections, None) or next(following, None)


def _storage(of: Any) -> int:
    weight: torch.Tensor = of.module.weight if isinstance(of, Modulated) else of.weight
    return weight.untyped_storage().data_ptr()


def watched(model: nn.Module, token: Token) -> Token:
    """The meaning of ``"auto"`` for a model: its class token if it has one, otherwise the mean."""
    return token if token != "auto" else "cls" if has_class_token(model) else "mean"


def has_class_token(model: nn.Module) -> bool:
    """Whether the first token of every layer is a class token; known only for models with a layout."""
    layout = _layout_of(Replica(model).model)
    if layout is None or not layout.num_prefix_tokens:
        return False
    parameters = {name for module in model.modules() for name, _ in module.named_parameters(recurse=False)}
    return not parameters.isdisjoint(_CLASS_TOKENS)


def _layout_of(model: nn.Module) -> Layout | None:
    try:
        return layout_for(model)
    except UnsupportedModelError:
        return None
