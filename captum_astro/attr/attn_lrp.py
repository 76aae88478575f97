"""AttnLRP."""

from __future__ import annotations

from typing import Any

from captum.log import log_usage
from torch import nn

from captum_astro.attr._base import AttributeTo, TensorOrTuple
from captum_astro.attr._propagation import PropagationAttribution
from captum_astro.attr._target import Output
from captum_astro.capture.propagate import SharedGradients


class AttnLRP(PropagationAttribution):
    """AttnLRP in its implicit form: input times a gradient changed by rules, in one backward pass.

    Products share in halves (values get half, queries and keys a quarter each), the softmax is linearised where it
    stands, norms keep their deviation constant, an activation is ``[f(x) / x] x``, linear layers use the limit of the
    epsilon rule. The softmax's linearisation and biases take a share, so the relevance does not sum to the output.

    Source: Achtibat et al., "AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers", ICML 2024
    (arXiv 2402.05602), Eq. 9 to 16. LRP methods may be covered by patents.

    Args:
        forward_func: A timm Vision Transformer, a wrapper of one, or a model with a registered layout.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> AttnLRP(model).attribute(torch.rand(1, 3, 224, 224), target=281).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "propagation"
    source = "Achtibat et al., ICML 2024, arXiv 2402.05602"

    def _mode(self, model: nn.Module) -> SharedGradients:
        return SharedGradients(model)

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
