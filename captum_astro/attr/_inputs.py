"""Validation of user input: images, patches, token ids and the chosen blocks."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import Any

import torch
from torch import nn

from captum_astro.astro.vita import ViTA
from captum_astro.attr._patches import check_patches
from captum_astro.caller import warn
from captum_astro.capture.modes import draws
from captum_astro.layouts.base import Layout


def channels_of(model: nn.Module, layout: Layout | None) -> int | None:
    """The number of channels that a model takes; None if unknown, as behind a wrapper that may change it."""
    plain = layout is None or layout.model is model or isinstance(model, nn.Sequential | ViTA)
    channels = getattr(model if layout is None else layout.model, "in_chans", None)
    return channels if plain and isinstance(channels, int) else None


def check_inputs(
    inputs: Any, model: nn.Module, layout: Layout | None, attribute_to: str, arguments: tuple[Any, ...] = ()
) -> None:
    """Reject inputs that no method can explain, and warn if the model's output is random.

    Args:
        inputs: The user's input: images, or patches or token ids if the layout reads those.
        model: The module that will be run.
        layout: The layout of the explained model, if it has one.
        attribute_to: The requested form.
        arguments: The additional arguments of the model.
    """
    if layout is not None and layout.reads_text:
        _check_text(inputs, attribute_to)
    elif layout is not None and layout.patch_lists is not None and isinstance(inputs, torch.Tensor):
        check_patches(inputs, arguments, layout.patch_lists, attribute_to)
    else:
        _check_images(inputs, model, channels_of(model, layout))
    if draws(model):
        warn("The model is in train mode, so its output is random. Call model.eval() first.")


def _check_text(inputs: Any, attribute_to: str) -> None:
    if not isinstance(inputs, torch.Tensor):
        raise AssertionError(
            f"`inputs` must be one tensor of token ids, or a tuple with one, not {type(inputs).__name__}."
        )
    if inputs.ndim != 2 or inputs.is_floating_point() or inputs.dtype == torch.bool or inputs.numel() == 0:
        raise ValueError(f"Token ids must be integers (B, n), not {inputs.dtype} {tuple(inputs.shape)}.")
    if attribute_to not in ("input", "tokens"):
        raise ValueError(f"Text has no {attribute_to}: use attribute_to='tokens', which returns (B, n).")


def _check_images(images: Any, model: nn.Module, channels: int | None) -> None:
    if not isinstance(images, torch.Tensor):
        raise AssertionError(
            f"`inputs` must be one tensor of images, or a tuple with one, not {type(images).__name__}. "
            f"Pass the model's other inputs as additional_forward_args."
        )
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(f"Images must be floating point (B, C, H, W), not {images.dtype} {tuple(images.shape)}.")
    if images.shape[0] == 0:
        raise ValueError("The batch is empty.")
    if channels is not None and images.shape[1] != channels:
        raise ValueError(f"{type(model).__name__} takes {channels} channels; the images have {images.shape[1]}.")
    if not torch.isfinite(images).all():
        raise ValueError("The images contain NaN or infinite values.")


def block_numbers(layers: Iterable[int] | slice | None, blocks: int) -> set[int] | None:
    """The indices of the chosen blocks, counted from 0; None for all.

    Raises:
        ValueError: If there is no such block.
    """
    if layers is None:
        return None
    if isinstance(layers, slice):
        return set(range(blocks)[layers])
    if isinstance(layers, int):
        raise ValueError(f"layers must be a list of blocks: pass [{layers}].")
    numbers = set[int]()
    for layer in layers:
        if not isinstance(layer, Integral):  # includes NumPy's
            raise ValueError(f"layers must be a list of block numbers, but contains {layer!r}.")
        if not -blocks <= layer < blocks:
            raise ValueError(f"layers contains {layer}, but the blocks are numbered 0 to {blocks - 1}.")
        numbers.add(int(layer) % blocks)
    return numbers
