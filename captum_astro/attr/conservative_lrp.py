"""Conservative LRP: gradient times input with constant attention and norms."""

from __future__ import annotations

from captum_astro.attr._propagation import InputTimesGradient
from captum_astro.capture.call import Call
from captum_astro.capture.gradient_rules import ConstantWeights


class ConservativeLRP(InputTimesGradient):
    """Input times gradient, with attention weights and the norms' standard deviations held constant (AH and LN rules).

    The relevance of all tokens sums to the explained output in a model without biases whose activations are homogeneous
    (ReLU). Biases, position embeddings and GELU absorb a share, so in general it does not. A gated feed-forward layer
    is split in halves.

    Source: Ali et al., "XAI for Transformers: Better Explanations through Conservative Propagation", ICML 2022
    (arXiv 2202.07304), Eq. 11 to 14. LRP methods may be covered by patents.

    Args:
        forward_func: Any model of images, such as timm's, if every operation has a rule; or a model of texts that has a
            layout.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> ConservativeLRP(model).attribute(torch.rand(1, 3, 224, 224), target=281).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "propagation"
    source = "Ali et al., ICML 2022, arXiv 2202.07304"

    def _mode(self, call: Call) -> ConstantWeights:
        return ConstantWeights(call.model)
