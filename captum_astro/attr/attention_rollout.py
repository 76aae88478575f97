"""Attention rollout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from captum_astro.attr._base import TokenAttribution
from captum_astro.attr._contract import Layered, TensorOrTuple, contract
from captum_astro.capture.carry import Update
from captum_astro.capture.records import AttentionRecord, StageRecord
from captum_astro.functional.rollout import mixed_row, row_sums

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AttentionRollout(TokenAttribution):
    """The product of the attention maps through the layers: ``U = rownorm(I + E_h[A])``, read at the read-out row.

    Source: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020 (arXiv 2005.00928), Eq. 1. Rows of
    attention sum to 1, so this is the form ``0.5 I + 0.5 E_h[A]``. Needs no gradient, and is the same for every class.

    Args:
        forward_func: A timm Vision Transformer, a wrapper around one, or a model with a registered layout.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> AttentionRollout(model).attribute(torch.rand(1, 3, 224, 224), target=281).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "attention"
    source = "Abnar and Zuidema, ACL 2020, arXiv 2005.00928"
    needs_gradient = False

    @contract
    def attribute(
        self, inputs: TensorOrTuple, target: Any = None, *, start_layer: int = 0, **common: Unpack[Layered]
    ) -> TensorOrTuple:
        """Compute the attention rollout.

        Args:
            target: Validated, if given, but has no effect.
            start_layer: The first block to include; papers use 0 and 1.
        """
        return self._explain(inputs, target, RolloutUpdate(), common, start_layer=start_layer)


class RolloutUpdate(Update):
    """``U = rownorm(I + sum_h w_h A_h)``, whose heads have equal weights, unless a method gives them others."""

    def weights(self, record: AttentionRecord) -> torch.Tensor | None:
        """The weights of a layer's heads, ``(B, H)``; None if they are equal."""
        return None

    def attention(self, row: torch.Tensor, record: AttentionRecord) -> torch.Tensor:
        """The row times ``sum_h w_h A_h``."""
        return mixed_row(row, record.attention, self.weights(record))

    def entering(self, row: torch.Tensor, record: StageRecord) -> torch.Tensor:
        """The row over the row sums of ``I + sum_h w_h A_h``; where the stream is replaced, every row sums to 1."""
        if not record.attentions or not record.keeps:
            return row
        return row / (1 + sum(self._row_sums(attention) for attention in record.attentions))

    def _row_sums(self, record: AttentionRecord) -> torch.Tensor | float:
        """The row sum of each token: one number, ``(B, 1)`` or ``(B, n)``; 0 for a token that is not a query."""
        sums = row_sums(record.attention, self.weights(record), record.present)
        if record.outputs is None:
            return sums
        size = len(record.attention.value), record.attention.queries
        return record.outputs.scatter(torch.as_tensor(sums, device=record.residual.device).expand(size))
