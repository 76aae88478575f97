"""Grad-CAM on the channels of the tokens, or of any feature map."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from captum_astro.attr._base import Explanation, warn_of_features
from captum_astro.attr._batch import Batch
from captum_astro.attr._channels import Known, maps_of_layer
from captum_astro.attr._contract import AttributeTo, Common, TensorOrTuple, check_names, contract
from captum_astro.attr._layer import find_tap, timm_model
from captum_astro.attr._patches import spread
from captum_astro.caller import warn
from captum_astro.capture.call import Call
from captum_astro.capture.entry import check_unmoved
from captum_astro.capture.features import lacks_classes
from captum_astro.capture.replica import Replica
from captum_astro.capture.target import Output, Target
from captum_astro.functional.grad_cam import grad_cam
from captum_astro.kinds import FLAG
from captum_astro.layouts.unwrap import unwrapped

if TYPE_CHECKING:
    from typing_extensions import Unpack


class TokenGradCAM(Explanation):
    """Channels weighted by their mean gradient: ``relu( sum_c w_c A_c )``, at one layer of any timm model.

    For Vision Transformers the prefix tokens are left out, and the default layer is the input of the last block's
    attention (``blocks[-1].norm1``): after it, the patch tokens of a model with a class token receive no gradient.
    Hierarchical and convolutional models work too; the default is then the last layer in timm's ``feature_info``, or,
    if its output is no grid or its patches receive no gradient, the last norm or block for which both hold.

    Source: Selvaraju et al., "Grad-CAM", ICCV 2017 (arXiv 1610.02391), Eq. 1 and 2.

    Args:
        forward_func: The model.
        layer: A module of the model, or its dotted path. Its output is used: tokens ``(B, n, d)``, or a feature map
            with channels first or last. Where the model's layout does not say which, a probe shows it.

    Raises:
        UnsupportedModelError: If no layer is given and the model has neither a layout nor ``feature_info``.
        ValueError: If the layer is not part of the model.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> TokenGradCAM(model).attribute(torch.rand(1, 3, 224, 224), target=281).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "gradient"
    source = "Selvaraju et al., ICCV 2017, arXiv 1610.02391"
    _cam = staticmethod(grad_cam)
    _least: torch.dtype | None = None  # precision, whatever the model's own

    def __init__(self, forward_func: nn.Module, layer: nn.Module | str | None = None) -> None:
        super().__init__(forward_func)
        self.layer = layer
        self._known: Known = {}
        replica = Replica(unwrapped(forward_func))
        find_tap(replica.model, replica.of(layer))

    @contract
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: Any = None,
        *,
        output: Output = "logit",
        relu_attributions: bool = True,
        **common: Unpack[Common],
    ) -> TensorOrTuple:
        """Explain each image's target.

        Args:
            output: ``y``, the target's ``"logit"``, as published, or its softmax ``"probability"``.
            relu_attributions: Set negative values to 0, as published.
            attribute_to: ``"input"`` returns the inputs' shape, the pixel map shared equally among the channels;
                ``"pixels"`` returns ``(B, 1, H, W)``, ``"grid"`` ``(B, 1, rows, columns)``; ``"tokens"`` ``(B, n)``, 0
                for the prefix tokens.

        Raises:
            UnsupportedModelError: If no rows and columns of the image can be found in the layer's output.
            ValueError: If an argument has an invalid value, the images cannot be explained, or no gradient reaches the
                patches of this layer.
        """
        check_names(f"{self.get_name()}.attribute", common, Common)
        FLAG.check("relu_attributions", relu_attributions)
        with self._private(self._explained(), self._least) as replica, self._autocast():
            layer = replica.of(self.layer)
            layout, _ = find_tap(replica.model, layer)
            batch = Batch(replica, layout, inputs, Target(target, output), common)
            options = layer, relu_attributions, batch.attribute_to
            found = []
            for part in batch.parts():
                with batch.trying():
                    found.append((part, self._one(part.call, *options)))
            attributions: TensorOrTuple = batch.joined(found)
        return attributions

    def _one(self, call: Call, layer: nn.Module | str | None, relu: bool, attribute_to: AttributeTo) -> torch.Tensor:
        """Run the method on one part."""
        if attribute_to in ("input", "pixels"):
            check_unmoved(call, timm_model(call.model) if call.layout is None else call.layout.model)
        seen = maps_of_layer(replace(call, target=self._target(call)), layer, self._known)
        if call.target.output == "probability" and (why := lacks_classes(call.model)):
            warn_of_features(call.model, why)
        cam = self._cam(seen.activation, seen.gradient, relu)
        if not cam.flatten(1).any(1).all():
            warn(
                f"{self.get_name()} gives a map that is zero everywhere: no position has a positive sum. "
                f"Pass relu_attributions=False to see the negative values, or choose another layer."
            )
        if call.layout is not None and call.layout.reads_text:
            return cam
        lists = None if call.layout is None else call.layout.patch_lists
        if lists is not None and attribute_to == "input":
            return spread(cam, call.inputs, lists)
        return seen.shaped(cam, call.inputs, attribute_to)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self._least is None:
            return contextlib.nullcontext()
        device = next((x.device.type for x in self.forward_func.parameters()), "cpu")
        return torch.autocast(device, enabled=False)

    def _explained(self) -> nn.Module:
        """The module that is run."""
        module: nn.Module = self.forward_func
        return module

    def _target(self, call: Call) -> Target:
        """The target to explain for some of the images."""
        return call.target
