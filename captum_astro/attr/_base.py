"""The contract that all methods share: Captum's `attribute`, image in and image out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from captum._utils.common import _format_additional_forward_args
from captum.attr import GradientAttribution
from timm.layers import DropPath, PatchDropout
from torch import nn

from captum_astro.attr._target import Output, output_seed, select_samples
from captum_astro.capture.walk import Passed, Walker, walk
from captum_astro.functional.attention import widen
from captum_astro.layouts.base import Layout, layout_for
from captum_astro.layouts.errors import UnsupportedModelError

AttributeTo = Literal["input", "pixels", "grid", "tokens"]
TensorOrTuple = TypeVar("TensorOrTuple", torch.Tensor, tuple[torch.Tensor, ...])


class TokenWalker(Walker):
    """A walker that ends with a relevance for each token."""

    tokens: torch.Tensor


class TokenAttribution(GradientAttribution):
    """Base of the methods that walk from the last layer to the first.

    Class attributes that a method sets: ``family``, ``source`` (one line), ``needs_gradient``.

    Args:
        forward_func: A timm model, a wrapper of one, or an instance of a class with a registered layout.

    Raises:
        UnsupportedModelError: If the model has no layout, or checkpoints its gradients.
        TypeError: If it is not a `torch.nn.Module`.
    """

    family: str
    source: str
    needs_gradient: bool = True

    def __init__(self, forward_func: nn.Module) -> None:
        super().__init__(forward_func)
        _unwrapped(forward_func)

    @classmethod
    def get_name(cls) -> str:
        """The class name: Captum's default puts a space before every capital."""
        return cls.__name__

    def _explain(
        self,
        inputs: TensorOrTuple,
        target: Any,
        additional_forward_args: Any,
        internal_batch_size: int | None,
        attribute_to: AttributeTo,
        walker: Callable[[], TokenWalker],
        *,
        output: Output,
        layers: Iterable[int] | None,
    ) -> TensorOrTuple:
        """Run the method on a batch, in parts if asked, and bring its tokens into the form asked for."""
        if attribute_to not in ("input", "pixels", "grid", "tokens"):
            raise ValueError(f"attribute_to is 'input', 'pixels', 'grid' or 'tokens', not {attribute_to!r}.")
        images: Any = inputs[0] if isinstance(inputs, tuple) and len(inputs) == 1 else inputs
        maps = []
        for chosen, passed in self._passes(
            images, target, additional_forward_args, internal_batch_size, walker, output=output, layers=layers
        ):
            maps.append(_shaped(chosen.tokens, passed[0], passed[1], images, attribute_to))
        attributions = torch.cat(maps)
        return (attributions,) if isinstance(inputs, tuple) else attributions

    def _passes(
        self,
        images: Any,
        target: Any,
        additional_forward_args: Any,
        internal_batch_size: int | None,
        walker: Callable[[], TokenWalker],
        *,
        output: Output,
        layers: Iterable[int] | None,
    ) -> list[tuple[TokenWalker, tuple[Layout, Passed]]]:
        """One walk for each part of the batch."""
        model = _unwrapped(self.forward_func)
        layout = layout_for(model)
        _check_images(images, model, layout)
        batch = images.shape[0]
        step = batch if internal_batch_size is None else internal_batch_size
        if step < 1:
            raise ValueError(f"internal_batch_size is at least 1, not {internal_batch_size}.")
        blocks = None if layers is None else _block_numbers(layers, layout.stages[-1].block + 1)
        extra = _format_additional_forward_args(additional_forward_args) or ()
        passes = []
        for start in range(0, batch, step):
            samples = slice(start, min(start + step, batch))
            part = images[samples].detach()
            arguments = [select_samples(value, samples, batch) for value in extra]
            wanted = select_samples(target, samples, batch)
            chosen = walker()
            passed = walk(
                layout,
                model,
                partial(_forward, model, part, arguments),
                chosen,
                seed=partial(output_seed, target=wanted, kind=output) if self.needs_gradient else None,
                blocks=blocks,
            )
            passes.append((chosen, (layout, passed)))
        if self.needs_gradient and output == "probability" and getattr(layout.model, "num_classes", None) == 0:
            warnings.warn(
                f"{type(layout.model).__name__} has no classifier (num_classes=0): the softmax of its features is "
                f"not a probability. Pass output='logit' to explain one feature.",
                stacklevel=4,
            )
        return passes


def _forward(model: nn.Module, images: torch.Tensor, arguments: list[Any]) -> torch.Tensor:
    # an inference tensor cannot be saved for a backward pass; a copy can
    output: torch.Tensor = model(images.clone() if images.is_inference() else images, *arguments)
    return output


def _unwrapped(forward_func: Any) -> nn.Module:
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
    layout_for(model)
    return model


def _check_images(images: Any, model: nn.Module, layout: Layout) -> None:
    if not isinstance(images, torch.Tensor):
        raise AssertionError(
            f"`inputs` must be one tensor of images, or a tuple with one; {type(images).__name__} was given. "
            f"What else the model takes goes into additional_forward_args."
        )
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(f"Images are floating point (B, C, H, W); {images.dtype} {tuple(images.shape)} was given.")
    if images.shape[0] == 0:
        raise ValueError("The batch is empty.")
    channels = getattr(layout.model, "in_chans", None)
    if channels is not None and layout.model is model and images.shape[1] != channels:
        raise ValueError(f"{type(model).__name__} takes {channels} channels; the images have {images.shape[1]}.")
    if not torch.isfinite(images).all():
        raise ValueError("The images contain NaN or infinite values.")
    if any(module.training and _is_random(module) for module in model.modules()):
        warnings.warn("The model is in train mode, so its output is random. Call model.eval() first.", stacklevel=5)


def _is_random(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    return isinstance(module, DropPath | PatchDropout | nn.modules.batchnorm._BatchNorm)


def _block_numbers(layers: Iterable[int], blocks: int) -> set[int]:
    numbers = set()
    for layer in layers:
        if not -blocks <= layer < blocks:
            raise ValueError(f"layers contains {layer}, but the blocks are numbered 0 to {blocks - 1}.")
        numbers.add(layer % blocks)
    return numbers


def _shaped(
    tokens: torch.Tensor, layout: Layout, passed: Passed, images: torch.Tensor, attribute_to: AttributeTo
) -> torch.Tensor:
    """Tokens ``(B, n)`` as tokens, as the grid, or as an image, bilinearly enlarged."""
    if attribute_to == "tokens":
        return tokens.to(images.dtype)
    grid = tokens[:, layout.num_prefix_tokens :].reshape(-1, 1, *passed.grid)
    if attribute_to == "grid":
        return grid.to(images.dtype)
    pixels = F.interpolate(widen(grid), size=passed.extent, mode="bilinear", align_corners=False)
    height, width = passed.image_size
    pixels = pixels[:, :, :height, :width]
    if pixels.shape[-2:] != images.shape[-2:]:  # the wrapper resizes its input
        pixels = F.interpolate(pixels, size=images.shape[-2:], mode="bilinear", align_corners=False)
    if attribute_to == "input":
        pixels = (pixels / images.shape[1]).expand(-1, images.shape[1], -1, -1)
    return pixels.to(images.dtype).contiguous()
