"""Grad-CAM on the channels of the tokens, or of any feature map."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from captum.log import log_usage
from timm.layers import RmsNorm
from torch import nn

from captum_astro.attr._base import AttributeTo, Explanation, TensorOrTuple, check_form, enlarged
from captum_astro.attr._inputs import channels_of, check_images, parts, run_model
from captum_astro.attr._target import Output, output_seed
from captum_astro.capture.activation import activation_and_gradient
from captum_astro.functional.grad_cam import grad_cam
from captum_astro.layouts.base import Layout, layout_for
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.structure import AttentionBranch, Tap
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
        _tap(unwrapped(forward_func), layer)

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
        check_form(attribute_to)
        images: Any = inputs[0] if isinstance(inputs, tuple) and len(inputs) == 1 else inputs
        model = unwrapped(self.forward_func)
        layout, tap = _tap(model, self.layer)
        check_images(images, model, channels_of(model, layout))
        maps = []
        for part, wanted, arguments in parts(images, target, additional_forward_args, internal_batch_size):
            activation, gradient, seen = activation_and_gradient(
                model,
                layout.model if layout is not None else model,
                tap,
                partial(run_model, model, part, arguments),
                partial(output_seed, target=wanted, kind=output),
            )
            image_size = seen or (part.shape[-2], part.shape[-1])
            grid, prefix = _positions(activation, tap.module, layout, model, image_size)
            flat, slopes = (_flat(x, tap.module, model)[:, prefix:] for x in (activation, gradient))
            if (slopes == 0).flatten(1).all(1).any():
                raise ValueError(_no_gradient(model))
            cam = self._cam(flat, slopes, relu_attributions)
            if attribute_to == "tokens":
                if activation.ndim != 3:
                    raise ValueError("This layer has no tokens: use attribute_to='grid'.")
                maps.append(F.pad(cam, (prefix, 0)).to(part.dtype))
                continue
            extent = layout.extent(*image_size) if layout is not None else image_size
            maps.append(enlarged(cam.reshape(-1, 1, *grid), image_size, extent, part, attribute_to))
        attributions = torch.cat(maps)
        return (attributions,) if isinstance(inputs, tuple) else attributions


def _tap(model: nn.Module, layer: nn.Module | str | None) -> tuple[Layout | None, Tap]:
    """The model's layout, if it has one, and the tensor to read."""
    try:
        layout: Layout | None = layout_for(model)
    except UnsupportedModelError:
        layout = None
    if isinstance(layer, str):
        try:
            return layout, Tap(model.get_submodule(layer), "output")
        except AttributeError as error:
            raise ValueError(f"{type(model).__name__} has no layer {layer!r}.") from error
    if layer is not None:
        if all(module is not layer for module in model.modules()):
            raise ValueError(f"The {type(layer).__name__} given as layer is not one of {type(model).__name__}'s.")
        return layout, Tap(layer, "output")
    if layout is not None:
        last = [stage for stage in layout.stages if any(isinstance(b, AttentionBranch) for b in stage.branches)][-1]
        normalises = isinstance(last.stream.module, nn.LayerNorm | nn.RMSNorm | RmsNorm)
        return layout, Tap(last.stream.module, "output") if normalises else last.stream
    features = getattr(model, "feature_info", None)
    if not features:
        raise UnsupportedModelError(
            f"{type(model).__name__} has no layout and no timm feature_info: give the layer, as a module or its path."
        )
    return None, Tap(model.get_submodule(features[-1]["module"]), "output")


def _channels_last(module: nn.Module, model: nn.Module) -> bool:
    """By what the layer is; where that does not tell, by what timm says of the model."""
    if type(module).__name__.removesuffix("Fp32").endswith("2d") or isinstance(module, nn.GroupNorm):
        return False
    if isinstance(module, nn.LayerNorm | nn.Linear):
        return True
    return getattr(model, "output_fmt", "NCHW") == "NHWC"


def _flat(x: torch.Tensor, module: nn.Module, model: nn.Module) -> torch.Tensor:
    """Positions x channels, ``(B, positions, channels)``."""
    if x.ndim == 3:
        return x
    return x.flatten(1, 2) if _channels_last(module, model) else x.flatten(2).transpose(1, 2)


def _positions(
    x: torch.Tensor, module: nn.Module, layout: Layout | None, model: nn.Module, image_size: tuple[int, int]
) -> tuple[tuple[int, int], int]:
    """Rows and columns of an activation, and how many prefix tokens stand before them."""
    if x.ndim == 4:
        return ((x.shape[1], x.shape[2]) if _channels_last(module, model) else (x.shape[2], x.shape[3])), 0
    if x.ndim != 3:
        raise UnsupportedModelError(f"{type(module).__name__} gives {tuple(x.shape)}: no tokens and no feature map.")
    if layout is not None:
        grid, prefix = layout.grid(*image_size), layout.num_prefix_tokens
    else:
        prefix = int(cast(Any, getattr(model, "num_prefix_tokens", 0)) or 0)
        rows = round(((x.shape[1] - prefix) * image_size[0] / image_size[1]) ** 0.5)
        grid = (rows, (x.shape[1] - prefix) // max(1, rows))
    if grid[0] * grid[1] + prefix != x.shape[1]:
        raise UnsupportedModelError(
            f"{type(module).__name__} gives {x.shape[1]} tokens, which are not {prefix} prefix tokens and a grid of "
            f"{grid[0]} x {grid[1]}."
        )
    return grid, prefix


def _no_gradient(model: nn.Module) -> str:
    _, default = _tap(model, None)
    name = next((name for name, module in model.named_modules() if module is default.module), "")
    return (
        f"The gradient at the patches of this layer is zero: nothing reads them after it. A layer that works "
        f"is {name!r}, the default. With output='probability', a sure model has no gradient: use 'logit'."
    )
