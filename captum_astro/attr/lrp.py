"""LRP by deep Taylor decomposition (z+)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from captum_astro.attr._contract import Common, TensorOrTuple, contract
from captum_astro.attr._precision import Precision, least_dtype
from captum_astro.attr._propagation import PropagationAttribution
from captum_astro.capture.call import Call
from captum_astro.capture.original_rules import OriginalRelevance
from captum_astro.capture.relevance_rules import Relevance
from captum_astro.kinds import choice

if TYPE_CHECKING:
    from typing_extensions import Unpack

RuleSet = Literal["normalised", "original"]
_RULES: dict[RuleSet, type[Relevance]] = {"normalised": Relevance, "original": OriginalRelevance}


class LRP(PropagationAttribution):
    """Relevance by the z+ rule (alpha = 1, beta = 0) through every layer to the pixels, which use z^B.

    Relevance starts as 1 at the target. Linear layers propagate it by their positive contributions, residual adds in
    proportion to the summands, products in halves; norms, activations, LayerScale and the softmax pass it on unchanged.
    Each sample is normalised separately. The relevance of all tokens that enter the first block sums to 1; that of the
    pixels sums to 1 minus the share of the position embeddings and of the prefix tokens. Other rules are an option.

    Source: Montavon et al., Pattern Recognition 2017 (z+, z^B), as extended to Vision Transformers by Chefer, Gur,
    Wolf, "Transformer Interpretability Beyond Attention Visualization", CVPR 2021 (arXiv 2012.09838), Eq. 1 to 10. LRP
    methods may be covered by patents.

    Args:
        forward_func: Any model of images, such as timm's, if every operation has a rule; or a model of texts that has a
            layout.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> LRP(model).attribute(torch.rand(1, 3, 224, 224), target=281).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "propagation"
    source = "Chefer et al., CVPR 2021, arXiv 2012.09838; Montavon et al., 2017"

    def _mode(self, call: Call, rules: RuleSet = "normalised") -> Relevance:
        reads_text = call.layout is not None and call.layout.reads_text
        return _RULES[rules](call.model, len(call.inputs), from_pixels=not reads_text)

    @contract
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: Any = None,
        *,
        rules: RuleSet = "normalised",
        precision: Precision = "float64",
        **common: Unpack[Common],
    ) -> TensorOrTuple:
        """Explain each image's target.

        Args:
            rules: ``"normalised"``, those of the paper (``layers_ours`` in the authors' code), or ``"original"``, the
                older ones (``layers_lrp``) with which the "LRP" of many tables was computed: linear layers divide by
                the sum of each sign alone, and residual adds are not normalised, so that relevance is not conserved.
            precision: ``"float64"``, or ``"float32"``, which is faster, but mostly rounding in a trained model; on a
                device without float64 (MPS) always float32. A model of a higher precision keeps it.
            attribute_to: ``"input"`` returns the relevance of every pixel and channel, ``"pixels"`` the sum over the
                channels, ``(B, 1, H, W)``; ``"grid"`` the relevance of the patch tokens, ``(B, 1, rows, columns)``, and
                ``"tokens"`` that of all tokens that enter the first block, ``(B, n)``.

        Returns:
            Signed attributions with the inputs' dtype and device, not normalised; a tuple if the input was a tuple.
        """
        choice("normalised", "original").check("rules", rules)
        least = least_dtype(precision, self.forward_func)
        return self._relevance(inputs, target, common, "logit", least, partial(self._mode, rules=rules))
