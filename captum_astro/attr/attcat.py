"""ATTCAT: attentive class activation tokens."""

from __future__ import annotations

from typing import Any

import torch
from captum.log import log_usage

from captum_astro.attr._base import AttributeTo, TensorOrTuple, TokenAttribution, TokenWalker
from captum_astro.attr._target import Output
from captum_astro.capture.records import AttentionRecord, StageRecord
from captum_astro.functional.attcat import class_activation, received_attention


class ATTCAT(TokenAttribution):
    """Each token times its gradient, weighted by the attention that it receives, summed over the layers. Signed.

    ``sum over the blocks of a_i (token_i . dy/dtoken_i)``, with ``token_i`` the block's output and ``a_i`` the
    attention that token i receives there, the mean over heads and queries. A pooling head is no block and
    weighs nothing.

    Source: Qiang et al., "AttCAT: Explaining Transformers via Attentive Class Activation Tokens", NeurIPS 2022.

    Args:
        forward_func: A timm Vision Transformer, a wrapper of one, or a model with a registered layout.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> ATTCAT(model).attribute(torch.rand(1, 3, 224, 224), target=281).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "attention"
    source = "Qiang et al., NeurIPS 2022"

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: Any = None,
        *,
        output: Output = "logit",
        readout_row: bool = False,
        start_layer: int = 0,
        additional_forward_args: Any = None,
        internal_batch_size: int | None = None,
        attribute_to: AttributeTo = "input",
    ) -> TensorOrTuple:
        """Explain each image's target.

        Args:
            inputs: Images ``(B, C, H, W)``, or a tuple with that one tensor.
            target: The class to explain, in any form that Captum takes.
            output: ``y``, the target's ``"logit"``, as published, or its softmax ``"probability"``.
            readout_row: Take the attention that the classified token pays, instead of the mean over all queries. A
                model with a pooling head classifies none of its blocks' rows: there it is the mean all the same.
            start_layer: The first block that counts.
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
            lambda layout: _ATTCATWalker(readout_row),
            output=output,
            layers=slice(start_layer, None),
            stream_gradients=True,
        )


class _ATTCATWalker(TokenWalker):
    def __init__(self, readout_row: bool) -> None:
        self._readout_row = readout_row
        self._row: torch.Tensor | None = None
        self._block = -1
        self._activation = self._total = torch.empty(0)

    def begin(self, readout: torch.Tensor, pooling: AttentionRecord | None) -> None:
        if self._readout_row and pooling is None:
            self._row = readout

    def step(self, record: StageRecord) -> None:
        if record.stage.block != self._block:  # the last stage of a block: what follows is the block's output
            self._block = record.stage.block
            assert record.following_gradient is not None
            self._activation = class_activation(record.following, record.following_gradient)
            if self._total.numel() == 0:
                self._total = torch.zeros_like(self._activation)
        for branch in record.branches:
            if isinstance(branch, AttentionRecord):
                self._total = self._total + received_attention(branch.attention, self._row) * self._activation

    def end(self, stream: torch.Tensor) -> None:
        self.tokens = self._total
