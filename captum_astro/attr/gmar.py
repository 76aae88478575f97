"""GMAR: gradient-driven multi-head attention rollout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch

from captum_astro.attr._base import TokenAttribution
from captum_astro.attr._contract import Layered, TensorOrTuple, contract
from captum_astro.capture.carry import Update
from captum_astro.capture.records import AttentionRecord, StageRecord
from captum_astro.capture.target import Output
from captum_astro.functional.gmar import head_weights, row_sums, weighted_row
from captum_astro.kinds import choice

if TYPE_CHECKING:
    from typing_extensions import Unpack

Size = Literal["l1", "l2"]


class GMAR(TokenAttribution):
    """Attention rollout whose heads count by the size of their gradient: ``U = rownorm(I + sum_h w_h A_h)``.

    ``w_h`` is the size of ``dy/dA_h``, divided by the sum over the layer's heads. A pooling head is one more map,
    without ``I``.

    Source: Jo et al., "GMAR: Gradient-Driven Multi-Head Attention Rollout for Vision Transformer Interpretability",
    2025 (arXiv 2504.19414).

    Args:
        forward_func: A timm Vision Transformer, a wrapper around one, or a model with a registered layout.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> GMAR(model).attribute(torch.rand(1, 3, 224, 224), target=281).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "attention"
    source = "Jo et al., 2025, arXiv 2504.19414"

    @contract
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: Any = None,
        *,
        output: Output = "logit",
        size: Size = "l1",
        **common: Unpack[Layered],
    ) -> TensorOrTuple:
        """Explain each image's target.

        Args:
            output: ``y``, the target's ``"logit"``, as published, or its softmax ``"probability"``.
            size: Of a head's gradient: the sum of its absolute values, ``"l1"``, or the root of the sum of its squares,
                ``"l2"``; the paper has both.
        """
        return self._explain(inputs, target, _GMARUpdate(size), common, output)


class _GMARUpdate(Update):
    def __init__(self, size: Size) -> None:
        choice("l1", "l2").check("size", size)
        self._power = 1 if size == "l1" else 2

    def attention(self, row: torch.Tensor, record: AttentionRecord) -> torch.Tensor:
        weights = self._weights(record)
        if row.ndim == 2:
            return weighted_row(row, record.attention, weights)
        return torch.stack([weighted_row(one, record.attention, weights) for one in row.unbind(1)], 1)

    def entering(self, row: torch.Tensor, record: StageRecord) -> torch.Tensor:
        """The row sums by which ``I + sum_h w_h A_h`` is divided; where the stream is replaced, every row sums to 1."""
        if not record.attentions or not record.keeps:
            return row
        return row / (1 + torch.stack([self._row_sums(attention) for attention in record.attentions]).sum(0))

    def _weights(self, record: AttentionRecord) -> torch.Tensor:
        images = len(record.residual)
        return head_weights(record.attention, record.gradient, images, self._power, record.present)

    def _row_sums(self, record: AttentionRecord) -> torch.Tensor:
        """The row sum of each token in the weighted map, ``(B, n)``; 0 for a token that is not a query."""
        sums = row_sums(record.attention, self._weights(record), record.present)
        return sums if record.outputs is None else record.outputs.scatter(sums)
