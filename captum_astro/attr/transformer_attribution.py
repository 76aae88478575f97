"""Transformer Attribution."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from captum_astro.attr._base import TokenAttribution
from captum_astro.attr._contract import Layered, TensorOrTuple, contract
from captum_astro.attr._precision import Precision, least_dtype
from captum_astro.capture.call import Call
from captum_astro.capture.capture import capture
from captum_astro.capture.carry import Update, carry
from captum_astro.capture.records import AttentionRecord, Pass
from captum_astro.capture.relevance_rules import Relevance
from captum_astro.capture.wanted import Wanted
from captum_astro.functional.transformer_attribution import transformer_attribution_update

if TYPE_CHECKING:
    from typing_extensions import Unpack


class TransformerAttribution(TokenAttribution):
    """Relevance of the attention maps times their gradients, through the layers: ``U = I + E_h[(dy/dA * R_A)^+]``.

    ``R_A`` is the relevance that `LRP` assigns to an attention map, starting as 1 at the target; y is the logit. Rows
    are not normalised. One backward pass computes the gradients, another the relevance, layer by layer.

    Source: Chefer, Gur, Wolf, "Transformer Interpretability Beyond Attention Visualization", CVPR 2021 (arXiv
    2012.09838), Eq. 13 and 14, as its public code computes it for one image; here each sample of a batch is normalised
    separately. It was published for models with a class token. LRP methods may be covered by patents.

    Args:
        forward_func: A timm Vision Transformer, a wrapper around one, or a model with a registered layout.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> TransformerAttribution(model).attribute(torch.rand(1, 3, 224, 224), target=281).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "propagation"
    source = "Chefer et al., CVPR 2021, arXiv 2012.09838"

    @contract
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: Any = None,
        *,
        start_layer: int = 0,
        precision: Precision = "float64",
        **common: Unpack[Layered],
    ) -> TensorOrTuple:
        """Explain each image's target.

        Args:
            start_layer: The first block to include, named as in the authors' code.
            precision: ``"float64"``, or ``"float32"``, which is faster and less exact; on a device without float64
                (MPS) always float32. A model of a higher precision keeps it.

        Raises:
            UnsupportedModelError: If an operation of the model has no rule.
        """
        least = least_dtype(precision, self.forward_func)
        return self._explain(inputs, target, _RelevanceUpdate(), common, start_layer=start_layer, least=least)

    def _row(self, call: Call, wanted: Wanted, passed: Pass, update: Update) -> torch.Tensor:
        assert isinstance(update, _RelevanceUpdate)
        ruled = capture(call, replace(wanted, rules=Relevance(call.model, len(call.inputs), from_pixels=False)))
        return carry(passed, update.with_relevance(ruled))


class _RelevanceUpdate(Update):
    """Attention relevance, from a second pass under the z+ rules, times attention gradient, from the first."""

    def __init__(self, relevance: dict[str, AttentionRecord] | None = None) -> None:
        self._relevance = relevance or {}

    def with_relevance(self, ruled: Pass) -> _RelevanceUpdate:
        """A copy that holds the pass under the rules, whose gradients are relevance."""
        records = [record for stage in ruled.stages for record in stage.attentions]
        records += [] if ruled.pooling is None else [ruled.pooling]
        return _RelevanceUpdate({record.branch.name: record for record in records})

    def attention(self, row: torch.Tensor, record: AttentionRecord) -> torch.Tensor:
        ruled = self._relevance[record.branch.name]
        return transformer_attribution_update(
            row, record.attention, record.gradient, ruled.attention, ruled.map_outputs, ruled.map_gradients
        )
