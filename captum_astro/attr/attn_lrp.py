"""AttnLRP."""

from __future__ import annotations

from captum_astro.attr._propagation import InputTimesGradient
from captum_astro.capture.call import Call
from captum_astro.capture.gradient_rules import SharedGradients


class AttnLRP(InputTimesGradient):
    """AttnLRP in its implicit form: input times a gradient modified by rules, in one backward pass.

    Products are split in halves (values get half, queries and keys a quarter each), the softmax is linearised at its
    input, norms hold their standard deviation constant, an activation is ``[f(x) / x] x``, linear layers use the limit
    of the epsilon rule. The linearisation of the softmax and the biases absorb a share, so the relevance does not sum
    to the output.

    Source: Achtibat et al., "AttnLRP: Attention-Aware Layer-Wise Relevance Propagation for Transformers", ICML 2024
    (arXiv 2402.05602), Eq. 9 to 16. LRP methods may be covered by patents.

    Args:
        forward_func: Any model of images, such as timm's, if every operation has a rule; or a model of texts that has a
            layout.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> AttnLRP(model).attribute(torch.rand(1, 3, 224, 224), target=281).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "propagation"
    source = "Achtibat et al., ICML 2024, arXiv 2402.05602"

    def _mode(self, call: Call) -> SharedGradients:
        return SharedGradients(call.model)
