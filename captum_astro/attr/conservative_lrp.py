"""Conservative LRP: gradient times input with constant attention and norms."""

from __future__ import annotations

from typing import Any

from captum.log import log_usage
from torch import nn

from captum_astro.attr._base import AttributeTo, TensorOrTuple
from captum_astro.attr._propagation import PropagationAttribution
from captum_astro.attr._target import Output
from captum_astro.capture.propagate import ConstantWeights


class ConservativeLRP(PropagationAttribution):
    """Input times gradient, with attention weights and the norms' deviations held constant (AH and LN rules).

    The relevance of all tokens sums to the explained output in a model without biases whose activations are
    homogeneous (ReLU). Biases, positions and GELU take a share of their own, so in general it does not. A gated
    feed-forward layer shares in halves.

    Source: Ali et al., "XAI for Transformers: Better Explanations through Conservative Propagation", ICML 2022
    (arXiv 2202.07304), Eq. 11 to 14. LRP methods may be covered by patents.

    Args:
        forward_func: A timm Vision Transformer, a wrapper of one, or a model with a registered layout.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> ConservativeLRP(model).attribute(torch.rand(1, 3, 224, 224), target=281).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "propagation"
    source = "Ali et al., ICML 2022, arXiv 2202.07304"

    def _mode(self, model: nn.Module) -> ConstantWeights:
        return ConstantWeights(model)

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
