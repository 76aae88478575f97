"""The contract that all methods share: Captum's `attribute`, image in and image out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from captum.attr import GradientAttribution
from torch import nn

from captum_astro.attr._inputs import block_numbers, check_inputs, part_size, parts, run_model
from captum_astro.attr._target import Output, chosen_scores, explained_positions, output_seed
from captum_astro.attr._text import text_parts
from captum_astro.capture.walk import Passed, Seed, Walker, walk
from captum_astro.functional.attention import widen
from captum_astro.layouts.base import Layout, layout_for
from captum_astro.layouts.unwrap import unwrapped

AttributeTo = Literal["input", "pixels", "grid", "tokens"]
TensorOrTuple = TypeVar("TensorOrTuple", torch.Tensor, tuple[torch.Tensor, ...])


class Explanation(GradientAttribution):
    """Base of all methods.

    Class attributes that a method sets: ``family``, ``source`` (one line), ``needs_gradient``.

    Args:
        forward_func: A `torch.nn.Module`.

    Raises:
        TypeError: If it is not one.
        UnsupportedModelError: If it is a ScriptModule, or recomputes its layers in the backward pass.
    """

    family: str
    source: str
    needs_gradient: bool = True

    def __init__(self, forward_func: nn.Module) -> None:
        super().__init__(forward_func)
        unwrapped(forward_func)

    @classmethod
    def get_name(cls) -> str:
        """The class name: Captum's default puts a space before every capital."""
        return cls.__name__

    def _in_parts(
        self,
        inputs: TensorOrTuple,
        target: Any,
        additional_forward_args: Any,
        internal_batch_size: int | None,
        attribute_to: AttributeTo,
        model: nn.Module,
        layout: Layout | None,
        explain: Callable[[torch.Tensor, Any, list[Any]], torch.Tensor],
    ) -> TensorOrTuple:
        """Explain a batch: some images at a time, or texts of one length at a time.

        Args:
            inputs: What the user gave, as are the four that follow.
            target: Of each sample.
            additional_forward_args: What the model takes besides.
            internal_batch_size: How many at a time.
            attribute_to: The form asked for.
            model: The module that is run.
            layout: Of the model that is explained, if it has one.
            explain: Gives the attributions of some inputs, for their target and what follows them.
        """
        if attribute_to not in ("input", "pixels", "grid", "tokens"):
            raise ValueError(f"attribute_to is 'input', 'pixels', 'grid' or 'tokens', not {attribute_to!r}.")
        given: Any = inputs[0] if isinstance(inputs, tuple) and len(inputs) == 1 else inputs
        check_inputs(given, model, layout, attribute_to)
        if layout is not None and layout.reads_text:
            step = part_size(internal_batch_size, len(given))
            dtype, longest = next(model.parameters()).dtype, given.shape[1]
            rows: dict[int, torch.Tensor] = {}
            for samples, texts, wanted, arguments in text_parts(layout, given, target, additional_forward_args, step):
                missing = longest - texts.shape[1]
                found = explain(texts, wanted, arguments).to(dtype)
                rows |= zip(samples, F.pad(found, (0, missing) * (found.ndim - 1)), strict=True)
            attributions = torch.stack([rows[sample] for sample in range(len(given))])
        else:
            images = parts(given, target, additional_forward_args, internal_batch_size)
            attributions = torch.cat([explain(*part) for part in images])
        return (attributions,) if isinstance(inputs, tuple) else attributions


class TokenWalker(Walker):
    """A walker that ends with a relevance for each token."""

    tokens: torch.Tensor


SecondPass = Callable[
    [TokenWalker, nn.Module, Layout, Callable[[], torch.Tensor], Callable[[torch.Tensor], Seed]], None
]


class TokenAttribution(Explanation):
    """Base of the methods that walk from the last layer to the first.

    Args:
        forward_func: A timm model, a wrapper of one, or an instance of a class with a registered layout.

    Raises:
        UnsupportedModelError: If the model has no layout.
    """

    def __init__(self, forward_func: nn.Module) -> None:
        super().__init__(forward_func)
        layout_for(unwrapped(forward_func))

    def _explain(
        self,
        inputs: TensorOrTuple,
        target: Any,
        additional_forward_args: Any,
        internal_batch_size: int | None,
        attribute_to: AttributeTo,
        walker: Callable[[Layout], TokenWalker],
        *,
        output: Output = "logit",
        layers: Iterable[int] | slice | None = None,
        stream_gradients: bool = False,
        then: SecondPass | None = None,
    ) -> TensorOrTuple:
        """Run the method on a batch, in parts if asked, and bring its tokens into the form asked for."""
        model = unwrapped(self.forward_func)
        layout = layout_for(model)
        blocks = block_numbers(layers, layout.stages[-1].block + 1)

        def explain(part: torch.Tensor, wanted: Any, arguments: list[Any]) -> torch.Tensor:
            chosen = walker(layout)
            seed = partial(output_seed, target=wanted, kind=output)
            passed = walk(
                layout,
                model,
                partial(run_model, model, part, arguments),
                chosen,
                seed=seed if self.needs_gradient else None,
                blocks=blocks,
                stream_gradients=stream_gradients,
                explained=partial(explained_positions, target=wanted),
            )
            if then is not None:
                then(chosen, model, layout, partial(run_model, model, part, arguments, widened=True), seed)
            if not self.needs_gradient and wanted is not None:
                chosen_scores(passed.output, wanted)  # the class does not matter, a mistake in it does
            drawn = chosen.tokens[:, 0 if layout.reads_text else layout.num_prefix_tokens :]
            if not drawn.flatten(1).any(1).all():
                warnings.warn(
                    f"{self.get_name()} gives a map that is zero everywhere: no layer has a positive term, or the "
                    f"gradient is zero, as that of the probability of a class that is certain.",
                    stacklevel=6,
                )
            if layout.reads_text:
                return chosen.tokens
            return _shaped(chosen.tokens, layout, passed, part, attribute_to)

        attributions = self._in_parts(
            inputs, target, additional_forward_args, internal_batch_size, attribute_to, model, layout, explain
        )
        if self.needs_gradient and output == "probability" and getattr(layout.model, "num_classes", None) == 0:
            warnings.warn(
                f"{type(layout.model).__name__} has no classifier (num_classes=0): the softmax of its features is "
                f"not a probability. Pass output='logit' to explain one feature.",
                stacklevel=4,
            )
        return attributions


def _shaped(
    tokens: torch.Tensor, layout: Layout, passed: Passed, images: torch.Tensor, attribute_to: AttributeTo
) -> torch.Tensor:
    """Tokens ``(B, n)`` as tokens, or as the grid, or as an image; a map ``C`` ``(B, n, n)`` stays as it is."""
    if attribute_to == "tokens":
        return tokens.to(images.dtype)
    grid = tokens[:, layout.num_prefix_tokens :].reshape(-1, 1, *passed.grid)
    return enlarged(grid, passed.image_size, passed.extent, images, attribute_to)


def enlarged(
    grid: torch.Tensor,
    image_size: tuple[int, int],
    extent: tuple[int, int],
    images: torch.Tensor,
    attribute_to: AttributeTo,
) -> torch.Tensor:
    """A grid ``(B, 1, h, w)`` as it is, as pixels, or shared equally among the channels: bilinear, contiguous.

    Args:
        grid: One value for each position.
        image_size: Of the image that the model was given.
        extent: The size in pixels that the grid covers.
        images: What the user gave; a wrapper may resize it before the model.
        attribute_to: The form.
    """
    if attribute_to == "grid":
        return grid.to(images.dtype)
    pixels = F.interpolate(widen(grid), size=extent, mode="bilinear", align_corners=False)
    height, width = image_size
    pixels = pixels[:, :, :height, :width]
    if pixels.shape[-2:] != images.shape[-2:]:
        pixels = F.interpolate(pixels, size=images.shape[-2:], mode="bilinear", align_corners=False)
    if attribute_to == "input":
        pixels = (pixels / images.shape[1]).expand(-1, images.shape[1], -1, -1)
    return pixels.to(images.dtype).contiguous()
