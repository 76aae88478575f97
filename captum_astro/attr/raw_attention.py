"""Raw attention of one layer."""

from __future__ import annotations

from typing import Any

import torch
from captum.log import log_usage

from captum_astro.attr._base import AttributeTo, TensorOrTuple, TokenAttribution
from captum_astro.attr._walker import LastLayerWalker
from captum_astro.capture.records import AttentionRecord
from captum_astro.functional.rollout import mixed_row


class RawAttention(TokenAttribution):
    """The attention that the classified token pays in one layer, averaged over the heads: ``r E_h[A]``.

    ``r`` is the class token's row, or the weights by which the model averages its tokens; with a pooling head, the
    last layer is that head. Needs no gradient, and is the same for every class.

    Args:
        forward_func: A timm Vision Transformer, a wrapper of one, or a model with a registered layout.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> RawAttention(model).attribute(torch.rand(1, 3, 224, 224), target=281).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "attention"
    source = "the last layer's attention map, as in Chefer et al., CVPR 2021, arXiv 2012.09838"
    needs_gradient = False

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: Any = None,
        *,
        layer: int | None = None,
        additional_forward_args: Any = None,
        internal_batch_size: int | None = None,
        attribute_to: AttributeTo = "input",
    ) -> TensorOrTuple:
        """Read the attention of a layer.

        Args:
            inputs: Images ``(B, C, H, W)``, or a tuple with that one tensor.
            target: Checked, if given, but without effect.
            layer: The block to read, from 0, negative from the end; by default the last, or the pooling head.
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
            lambda layout: _RawAttentionWalker(pooled=layer is None),
            layers=None if layer is None else [layer],
        )


class _RawAttentionWalker(LastLayerWalker):
    def __init__(self, pooled: bool) -> None:
        super().__init__()
        self._pooled = pooled

    def begin(self, readout: torch.Tensor, pooling: AttentionRecord | None) -> None:
        super().begin(readout, pooling)
        self._done = self._done and self._pooled

    def update(self, row: torch.Tensor, record: AttentionRecord) -> torch.Tensor:
        return mixed_row(row, record.attention)
