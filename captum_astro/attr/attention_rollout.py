"""Attention rollout."""

from __future__ import annotations

from typing import Any

import torch
from captum.log import log_usage

from captum_astro.attr._base import AttributeTo, TensorOrTuple, TokenAttribution
from captum_astro.attr._walker import RowWalker
from captum_astro.capture.records import AttentionRecord, StageRecord
from captum_astro.functional.rollout import mixed_row, rollout_step


class AttentionRollout(TokenAttribution):
    """Attention maps multiplied through the layers: ``U = rownorm(I + E_h[A])``, and the read-out row of the product.

    Source: Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020 (arXiv 2005.00928), Eq. 1. Rows of
    attention sum to 1, so this is the form ``0.5 I + 0.5 E_h[A]``. Needs no gradient, and is the same for every class.

    Args:
        forward_func: A timm Vision Transformer, a wrapper of one, or a model with a registered layout.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> AttentionRollout(model).attribute(torch.rand(1, 3, 224, 224), target=281).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "attention"
    source = "Abnar and Zuidema, ACL 2020, arXiv 2005.00928"
    needs_gradient = False

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: Any = None,
        *,
        start_layer: int = 0,
        additional_forward_args: Any = None,
        internal_batch_size: int | None = None,
        attribute_to: AttributeTo = "input",
    ) -> TensorOrTuple:
        """Roll the attention out.

        Args:
            inputs: Images ``(B, C, H, W)``, or a tuple with that one tensor.
            target: Checked, if given, but without effect.
            start_layer: The first block that counts; papers use 0 and 1.
            additional_forward_args: Passed to the model after the images.
            internal_batch_size: Explain so many images at a time.
            attribute_to: ``"input"`` gives the inputs' shape, the pixel map shared equally among the channels;
                ``"pixels"`` gives ``(B, 1, H, W)``, ``"grid"`` ``(B, 1, rows, columns)`` and ``"tokens"`` ``(B, n)``.

        Returns:
            Attributions of the inputs' dtype and device, not normalised; a tuple for a tuple.

        Raises:
            AssertionError: If the target is of no form that Captum takes.
            IndexError: If the target is out of range.
            ValueError: If an argument is not one of its values, or the images cannot be explained.
            UnsupportedModelError: If what was captured does not rebuild what the model computed.
        """
        return self._explain(
            inputs,
            target,
            additional_forward_args,
            internal_batch_size,
            attribute_to,
            lambda layout: _RolloutWalker(),
            layers=slice(start_layer, None),
        )


class _RolloutWalker(RowWalker):
    def step(self, record: StageRecord) -> None:
        attentions = [branch.attention for branch in record.branches if isinstance(branch, AttentionRecord)]
        if attentions:
            self.row = rollout_step(self.row, attentions)

    def update(self, row: torch.Tensor, record: AttentionRecord) -> torch.Tensor:
        return mixed_row(row, record.attention)
