"""GMAR: gradient-driven multi-head attention rollout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch

from captum_astro.attr._base import TokenAttribution
from captum_astro.attr._contract import Layered, TensorOrTuple, contract
from captum_astro.attr.attention_rollout import RolloutUpdate
from captum_astro.capture.records import AttentionRecord
from captum_astro.capture.target import Output
from captum_astro.functional.gmar import head_weights
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


class _GMARUpdate(RolloutUpdate):
    def __init__(self, size: Size) -> None:
        choice("l1", "l2").check("size", size)
        self._power = 1 if size == "l1" else 2
        self._last: tuple[AttentionRecord, torch.Tensor] | None = None

    def weights(self, record: AttentionRecord) -> torch.Tensor:
        if self._last is None or self._last[0] is not record:  # the sums of a layer's rows need them, too
            images = len(record.residual)
            found = head_weights(record.attention, record.gradient, images, self._power, record.present)
            self._last = record, found
        return self._last[1]
