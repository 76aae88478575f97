"""Transformer-MM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from captum_astro.attr._base import TokenAttribution
from captum_astro.attr._contract import Layered, TensorOrTuple, contract
from captum_astro.capture.carry import Update
from captum_astro.capture.records import AttentionRecord
from captum_astro.capture.target import Output
from captum_astro.functional.transformer_mm import transformer_mm_update

if TYPE_CHECKING:
    from typing_extensions import Unpack


class TransformerMM(TokenAttribution):
    """Attention times its gradient through the layers: ``U = I + E_h[(dy/dA * A)^+]``, and the read-out row.

    Source: Chefer et al., "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder
    Transformers", ICCV 2021 (arXiv 2103.15679), Eq. 5 and 6; a pooling head is its Eq. 10, without ``I``.

    Args:
        forward_func: A timm Vision Transformer, a wrapper around one, or a model with a registered layout.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> TransformerMM(model).attribute(torch.rand(1, 3, 224, 224), target=281).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "attention"
    source = "Chefer et al., ICCV 2021, arXiv 2103.15679"

    @contract
    def attribute(
        self, inputs: TensorOrTuple, target: Any = None, *, output: Output = "logit", **common: Unpack[Layered]
    ) -> TensorOrTuple:
        """Explain each image's target.

        Args:
            output: ``y``, the target's ``"logit"``, as published, or its softmax ``"probability"``.
        """
        return self._explain(inputs, target, _TransformerMMUpdate(), common, output)


class _TransformerMMUpdate(Update):
    def attention(self, row: torch.Tensor, record: AttentionRecord) -> torch.Tensor:
        return transformer_mm_update(row, record.attention, record.gradient)
