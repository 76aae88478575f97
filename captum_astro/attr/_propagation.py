"""Base of the methods that propagate relevance to the pixels."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from torch import nn

from captum_astro.attr._base import AttributeTo, Explanation, TensorOrTuple, check_form
from captum_astro.attr._inputs import channels_of, check_images, parts, run_model
from captum_astro.attr._target import Output, output_seed
from captum_astro.capture.input_relevance import Arrived, propagate
from captum_astro.layouts.base import Layout, layout_for
from captum_astro.layouts.unwrap import unwrapped


class PropagationAttribution(Explanation):
    """Signed relevance of every pixel and channel; summed, of every token.

    Args:
        forward_func: A timm Vision Transformer, a wrapper of one, or a model with a registered layout.

    Raises:
        UnsupportedModelError: If the model has no layout.
    """

    def __init__(self, forward_func: nn.Module) -> None:
        super().__init__(forward_func)
        layout_for(unwrapped(forward_func))

    def _mode(self, model: nn.Module) -> AbstractContextManager[Any]:
        """The rules of the method."""
        raise NotImplementedError

    def _relevance(
        self,
        inputs: TensorOrTuple,
        target: Any,
        additional_forward_args: Any,
        internal_batch_size: int | None,
        attribute_to: AttributeTo,
        *,
        output: Output,
        times_input: bool,
    ) -> TensorOrTuple:
        """Run the method on a batch, in parts if asked."""
        check_form(attribute_to)
        images: Any = inputs[0] if isinstance(inputs, tuple) and len(inputs) == 1 else inputs
        model = unwrapped(self.forward_func)
        layout = layout_for(model)
        check_images(images, model, channels_of(model, layout))
        maps = []
        for part, wanted, arguments in parts(images, target, additional_forward_args, internal_batch_size):
            arrived = propagate(
                model,
                layout,
                self._mode(model),
                partial(_run, model, arguments, not times_input),
                part,
                partial(output_seed, target=wanted, kind=output),
                times_input,
            )
            maps.append(_shaped(arrived, layout, attribute_to).to(part.dtype).contiguous())
        attributions = torch.cat(maps)
        return (attributions,) if isinstance(inputs, tuple) else attributions


def _run(model: nn.Module, arguments: list[Any], widened: bool, images: torch.Tensor) -> torch.Tensor:
    return run_model(model, images, arguments, widened)


def _shaped(arrived: Arrived, layout: Layout, attribute_to: AttributeTo) -> torch.Tensor:
    if attribute_to == "input":
        return arrived.image
    if attribute_to == "pixels":
        return arrived.image.sum(1, keepdim=True)
    assert arrived.tokens is not None
    if attribute_to == "tokens":
        return arrived.tokens
    grid = layout.grid(*arrived.image_size)
    return arrived.tokens[:, layout.num_prefix_tokens :].reshape(-1, 1, *grid)
