"""Raw attention of one layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from captum_astro.attr._base import TokenAttribution
from captum_astro.attr._contract import Layered, TensorOrTuple, contract
from captum_astro.capture.call import Call
from captum_astro.capture.carry import Update, carry_last
from captum_astro.capture.records import AttentionRecord, Pass
from captum_astro.capture.wanted import Wanted
from captum_astro.functional.rollout import mixed_row

if TYPE_CHECKING:
    from typing_extensions import Unpack


class RawAttention(TokenAttribution):
    """The attention that the classified token pays in one layer, averaged over the heads: ``r E_h[A]``.

    ``r`` is the class token's row, or the weights with which the model averages its tokens; with a pooling head, the
    last layer is that head. Needs no gradient, and is the same for every class.

    Args:
        forward_func: A timm Vision Transformer, a wrapper around one, or a model with a registered layout.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> RawAttention(model).attribute(torch.rand(1, 3, 224, 224), target=281).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "attention"
    source = "the last layer's attention map, as in Chefer et al., CVPR 2021, arXiv 2012.09838"
    needs_gradient = False
    reads_last = True

    @contract
    def attribute(self, inputs: TensorOrTuple, target: Any = None, **common: Unpack[Layered]) -> TensorOrTuple:
        """Read the attention of a layer.

        Args:
            target: Validated, if given, but has no effect.
            layers: The blocks to consider, counted from 0 (negative: from the end); the last of them is read. By
                default all, and a pooling head then counts as the last layer.
        """
        return self._explain(inputs, target, _RawAttentionUpdate(common.get("layers") is None), common)

    def _row(self, call: Call, wanted: Wanted, passed: Pass, update: Update) -> torch.Tensor:
        return carry_last(passed, update)


class _RawAttentionUpdate(Update):
    def __init__(self, reads_pooling: bool) -> None:
        self.reads_pooling = reads_pooling

    def attention(self, row: torch.Tensor, record: AttentionRecord) -> torch.Tensor:
        return mixed_row(row, record.attention)
