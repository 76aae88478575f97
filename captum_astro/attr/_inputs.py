"""What users hand over: models, images and arguments."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from captum._utils.common import _format_additional_forward_args
from timm.layers import DropPath, PatchDropout
from torch import nn

from captum_astro.functional.attention import widen
from captum_astro.layouts.errors import UnsupportedModelError


def run_model(model: nn.Module, images: torch.Tensor, arguments: list[Any], widened: bool = False) -> torch.Tensor:
    """The model's output for some images and the arguments that follow them.

    Args:
        model: The model.
        images: ``(B, C, H, W)``.
        arguments: What follows them.
        widened: Run a half-precision model in float32, for methods whose divisions need it.
    """
    if images.is_inference():
        images = images.clone()  # an inference tensor cannot be saved for a backward pass
    if not widened:
        output: torch.Tensor = model(images, *arguments)
        return output
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    wide = {name: widen(tensor.detach()) for name, tensor in tensors.items()}
    output = torch.func.functional_call(model, wide, (widen(images), *arguments))
    return output


def unwrapped(forward_func: Any) -> nn.Module:
    """The module itself, without DataParallel or a compiler around it."""
    model = getattr(forward_func, "_orig_mod", forward_func)
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"The model must be a torch.nn.Module, so that its layers can be seen; {type(model).__name__} was given."
        )
    for name, module in model.named_modules():
        if getattr(module, "grad_checkpointing", False) is True:
            raise UnsupportedModelError(
                f"{name or type(module).__name__} recomputes its layers in the backward pass, where they cannot be "
                f"captured. Call model.set_grad_checkpointing(False)."
            )
    if isinstance(model, torch.jit.ScriptModule):
        raise UnsupportedModelError("A ScriptModule hides its layers. Pass the Python model that it was made from.")
    return model


def check_images(images: Any, model: nn.Module, channels: int | None) -> None:
    """Refuse what no method can explain, and warn of a model whose output is random.

    Args:
        images: What the user gave.
        model: The module that will be run.
        channels: How many it takes, if that is known.
    """
    if not isinstance(images, torch.Tensor):
        raise AssertionError(
            f"`inputs` must be one tensor of images, or a tuple with one; {type(images).__name__} was given. "
            f"What else the model takes goes into additional_forward_args."
        )
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(f"Images are floating point (B, C, H, W); {images.dtype} {tuple(images.shape)} was given.")
    if images.shape[0] == 0:
        raise ValueError("The batch is empty.")
    if channels is not None and images.shape[1] != channels:
        raise ValueError(f"{type(model).__name__} takes {channels} channels; the images have {images.shape[1]}.")
    if not torch.isfinite(images).all():
        raise ValueError("The images contain NaN or infinite values.")
    if any(module.training and _is_random(module) for module in model.modules()):
        warnings.warn("The model is in train mode, so its output is random. Call model.eval() first.", stacklevel=5)


def _is_random(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    return isinstance(module, DropPath | PatchDropout | nn.modules.batchnorm._BatchNorm)


def block_numbers(layers: Iterable[int] | slice | None, blocks: int) -> set[int] | None:
    """Which blocks are meant, counted from 0; None for all.

    Raises:
        ValueError: If there is no such block.
    """
    if layers is None:
        return None
    if isinstance(layers, slice):
        return set(range(blocks)[layers])
    numbers = set()
    for layer in layers:
        if not -blocks <= layer < blocks:
            raise ValueError(f"layers contains {layer}, but the blocks are numbered 0 to {blocks - 1}.")
        numbers.add(layer % blocks)
    return numbers


def parts(
    images: torch.Tensor, target: Any, additional_forward_args: Any, internal_batch_size: int | None
) -> Iterator[tuple[torch.Tensor, Any, list[Any]]]:
    """The batch in parts: images, their target, and what follows them.

    Raises:
        ValueError: If the parts would be empty.
    """
    batch = images.shape[0]
    step = batch if internal_batch_size is None else internal_batch_size
    if step < 1:
        raise ValueError(f"internal_batch_size is at least 1, not {internal_batch_size}.")
    extra = _format_additional_forward_args(additional_forward_args) or ()
    for start in range(0, batch, step):
        samples = slice(start, min(start + step, batch))
        arguments = [select_samples(value, samples, batch) for value in extra]
        yield images[samples].detach(), select_samples(target, samples, batch), arguments


def select_samples(value: Any, samples: slice, batch: int) -> Any:
    """The part of a target or of an additional forward argument that belongs to some samples.

    Args:
        value: Lists and tensors with one entry a sample are cut; anything else is given to all.
        samples: Which samples.
        batch: How many there are in all.
    """
    if isinstance(value, list) and len(value) == batch:
        return value[samples]
    if isinstance(value, torch.Tensor) and value.ndim > 0 and value.shape[0] == batch and batch > 1:
        return value[samples]
    return value
