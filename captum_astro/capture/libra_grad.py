"""LibraGrad: a model whose gradients are balanced, for any method that uses gradients."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import nn

from captum_astro.capture.explaining import current, explaining
from captum_astro.capture.gradient_rules import ConstantDecisions
from captum_astro.capture.guard import check_parameters, keep_in_order
from captum_astro.capture.replica import Replica
from captum_astro.capture.rules_mode import UnderRules
from captum_astro.layouts.base import innermost
from captum_astro.layouts.unwrap import unwrapped


class LibraGrad(UnderRules):
    """A model with the same outputs, whose gradients are balanced, so that input times gradient adds up.

    Three paths of the gradient are pruned, and one is scaled: attention weights, the norms' standard deviations and the
    gate ``f(x) / x`` of an activation are constants, and each factor of a product of two features gets half. Then
    ``sum(x dy/dx)`` over the image and over all that the model adds to it (biases, position embeddings, class tokens)
    is the output. Pass it to any gradient method instead of the model: Captum's, such as ``InputXGradient``, or this
    package's, such as `TokenGradCAM`.

    Source: Mehri, Baghshah, Pilehvar, "LibraGrad: Balancing Gradient Flow for Universally Better Vision Transformer
    Attributions", CVPR 2025 (arXiv 2411.16760). LRP methods may be covered by patents, and these are rules of such.

    Args:
        model: Any model, such as timm's, if every operation has a rule.

    Attributes:
        model: A copy of the model with the same weights, which are frozen in it. For methods that explain a layer, take
            it from here, as in ``TokenGradCAM(libra, libra.model.blocks[-1].norm1)``.

    Raises:
        TypeError: If the model is no `torch.nn.Module`.
        UnsupportedModelError: If its layers are hidden or recomputed, or its parameters are inference tensors. When it
            runs, if an operation has no rule, or if it is explained by a method with rules of its own: AttnLRP,
            ConservativeLRP, LRP, ProjectedFlow and TransformerAttribution.

    Example:
        >>> import timm, torch
        >>> from captum.attr import InputXGradient
        >>> libra = LibraGrad(timm.create_model("test_vit").eval())
        >>> x = torch.rand(1, 3, 160, 160)
        >>> InputXGradient(libra).attribute(x, target=281).shape
        torch.Size([1, 3, 160, 160])
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        model = unwrapped(model)
        check_parameters(model)
        with torch.inference_mode(False):
            self.model = Replica(model).model
        keep_in_order(self.model)
        self.training = self.model.training

    def forward(self, inputs: Any, *arguments: Any, **options: Any) -> Any:
        """The model's output.

        Args:
            inputs: As the model takes them.
            arguments: Further arguments of the model.
            options: Its keyword arguments.
        """
        floating = isinstance(inputs, torch.Tensor) and inputs.is_floating_point()
        if torch.is_grad_enabled() and floating and not inputs.requires_grad:
            inputs = inputs.detach().requires_grad_(True)  # the weights are frozen, and a layer may be explained
        alone = contextlib.nullcontext() if current() else explaining(innermost(self.model))
        with alone, ConstantDecisions(self.model):
            return self.model(inputs, *arguments, **options)
