"""Grad-CAM on the channels of the tokens, or of any feature map."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from captum.log import log_usage
from torch import nn

from captum_astro.attr._base import AttributeTo, Explanation, TensorOrTuple
from captum_astro.attr._channels import channel_maps, find_tap
from captum_astro.attr._target import Output, output_seed
from captum_astro.functional.grad_cam import grad_cam
from captum_astro.layouts.unwrap import unwrapped


class TokenGradCAM(Explanation):
    """Channels weighted by their mean gradient: ``relu( sum_c w_c A_c )``, at one layer of any timm model.

    For Vision Transformers the prefix tokens are left out, and the default layer is what the last block's attention
    reads (``blocks[-1].norm1``): after it, the patch tokens of a model with a class token receive no gradient.
    Hierarchical and convolutional models work too; the default is then the last layer in timm's ``feature_info``.

    Source: Selvaraju et al., "Grad-CAM", ICCV 2017 (arXiv 1610.02391), Eq. 1 and 2.

    Args:
        forward_func: The model.
        layer: A module of the model, or its dotted path. Its output is taken: tokens ``(B, n, d)``, or a feature map
            with channels first, or last where timm says so (Swin).

    Raises:
        UnsupportedModelError: If no layer is given and the model has neither a layout nor ``feature_info``.
        ValueError: If the layer is none of the model's.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> TokenGradCAM(model).attribute(torch.rand(1, 3, 224, 224), target=281).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "gradient"
    source = "Selvaraju et al., ICCV 2017, arXiv 1610.02391"
    _cam = staticmethod(grad_cam)

    def __init__(self, forward_func: nn.Module, layer: nn.Module | str | None = None) -> None:
        super().__init__(forward_func)
        self.layer = layer
        find_tap(unwrapped(forward_func), layer)

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: Any = None,
        *,
        output: Output = "logit",
        relu_attributions: bool = True,
        additional_forward_args: Any = None,
        internal_batch_size: int | None = None,
        attribute_to: AttributeTo = "input",
    ) -> TensorOrTuple:
        """Explain each image's target.

        Args:
            inputs: Images ``(B, C, H, W)``, or a tuple with that one tensor.
            target: The class to explain, in any form that Captum takes.
            output: ``y``, the target's ``"logit"``, as published, or its softmax ``"probability"``.
            relu_attributions: Set negative values to 0, as published.
            additional_forward_args: Passed to the model after the images.
            internal_batch_size: Explain so many images at a time.
            attribute_to: ``"input"`` gives the inputs' shape, the pixel map shared equally among the channels;
                ``"pixels"`` gives ``(B, 1, H, W)``, ``"grid"`` ``(B, 1, rows, columns)``; ``"tokens"`` ``(B, n)``,
                0 for the prefix tokens.

        Returns:
            Attributions of the inputs' dtype and device, not normalised; a tuple for a tuple.

        Raises:
            AssertionError: If the target is of no form that Captum takes, or is needed and not given.
            IndexError: If the target is out of range.
            ValueError: If an argument is not one of its values, the images cannot be explained, or no gradient
                arrives at the patches of this layer.
        """
        model = self._explained()
        layout, tap = find_tap(model, self.layer)

        def explain(part: torch.Tensor, given: Any, arguments: list[Any]) -> torch.Tensor:
            wanted = self._wanted(part, given, arguments)
            seen = channel_maps(model, layout, tap, part, arguments, partial(output_seed, target=wanted, kind=output))
            cam = self._cam(seen.activation, seen.gradient, relu_attributions)
            text = layout is not None and layout.reads_text
            return cam if text else seen.shaped(cam, part, attribute_to)

        return self._in_parts(
            inputs, target, additional_forward_args, internal_batch_size, attribute_to, model, layout, explain
        )

    def _explained(self) -> nn.Module:
        """The module that is run."""
        return unwrapped(self.forward_func)

    def _wanted(self, images: torch.Tensor, target: Any, arguments: list[Any]) -> Any:
        """The target of some images."""
        return target
