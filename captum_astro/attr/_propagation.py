"""Base of the methods that propagate relevance to the pixels."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from captum.log import log_usage
from torch import nn

from captum_astro.attr._base import AttributeTo, Explanation, TensorOrTuple
from captum_astro.attr._inputs import run_model
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
        model = unwrapped(self.forward_func)
        layout = layout_for(model)

        def explain(part: torch.Tensor, wanted: Any, arguments: list[Any]) -> torch.Tensor:
            arrived = propagate(
                model,
                layout,
                self._mode(model),
                partial(_run, model, arguments, not times_input),
                part,
                partial(output_seed, target=wanted, kind=output),
                times_input,
            )
            found = _shaped(arrived, layout, attribute_to)
            return found if layout.reads_text else found.to(part.dtype).contiguous()

        return self._in_parts(
            inputs, target, additional_forward_args, internal_batch_size, attribute_to, model, layout, explain
        )


class InputTimesGradient(PropagationAttribution):
    """Base of the methods whose rules change the gradient, so that input times gradient is the relevance."""

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: Any = None,
        *,
        output: Output = "logit",
        additional_forward_args: Any = None,
        internal_batch_size: int | None = None,
        attribute_to: AttributeTo = "input",
    ) -> TensorOrTuple:
        """Explain each image's target.

        Args:
            inputs: Images ``(B, C, H, W)``, or a tuple with that one tensor.
            target: The class to explain, in any form that Captum takes.
            output: The target's ``"logit"``, as published, or its softmax ``"probability"``.
            additional_forward_args: Passed to the model after the images.
            internal_batch_size: Explain so many images at a time.
            attribute_to: ``"input"`` gives the relevance of every pixel and channel, ``"pixels"`` their sum over the
                channels, ``(B, 1, H, W)``; ``"grid"`` the patch tokens' relevance, ``(B, 1, rows, columns)``, and
                ``"tokens"`` that of all tokens that enter the first block, ``(B, n)``.

        Returns:
            Signed attributions of the inputs' dtype and device, not normalised; a tuple for a tuple.

        Raises:
            AssertionError: If the target is of no form that Captum takes, or is needed and not given.
            IndexError: If the target is out of range.
            ValueError: If an argument is not one of its values, or the images cannot be explained.
            UnsupportedModelError: If an operation of the model has no rule.
        """
        return self._relevance(
            inputs,
            target,
            additional_forward_args,
            internal_batch_size,
            attribute_to,
            output=output,
            times_input=True,
        )


def _run(model: nn.Module, arguments: list[Any], widened: bool, images: torch.Tensor) -> torch.Tensor:
    return run_model(model, images, arguments, widened)


def _shaped(arrived: Arrived, layout: Layout, attribute_to: AttributeTo) -> torch.Tensor:
    if attribute_to == "tokens" or arrived.image is None:
        return arrived.tokens
    if attribute_to == "input":
        return arrived.image
    if attribute_to == "pixels":
        return arrived.image.sum(1, keepdim=True)
    grid = layout.grid(*arrived.image_size)
    return arrived.tokens[:, layout.num_prefix_tokens :].reshape(-1, 1, *grid)
