"""ATTCAT: attentive class activation tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch

from captum_astro.attr._base import TokenAttribution
from captum_astro.attr._contract import Layered, TensorOrTuple, contract
from captum_astro.capture.call import Call
from captum_astro.capture.carry import Update, carry
from captum_astro.capture.records import AttentionRecord, Pass
from captum_astro.capture.target import Output
from captum_astro.capture.wanted import Wanted
from captum_astro.functional.attcat import class_activation, received_attention
from captum_astro.functional.attention import widen
from captum_astro.kinds import FLAG, choice
from captum_astro.layouts.errors import UnsupportedModelError

if TYPE_CHECKING:
    from typing_extensions import Unpack

Tokens = Literal["output", "input"]


class ATTCAT(TokenAttribution):
    """Each token times its gradient, weighted by the attention that it receives, summed over the layers. Signed.

    ``sum over the blocks of a_i (token_i . dy/dtoken_i)``, with ``token_i`` the block's output and ``a_i`` the
    attention that token i receives there, the mean over heads and queries; or the block's input, as in the authors'
    code. A pooling head is not a block and is not included.

    Source: Qiang et al., "AttCAT: Explaining Transformers via Attentive Class Activation Tokens", NeurIPS 2022.

    Args:
        forward_func: A timm Vision Transformer, a wrapper around one, or a model with a registered layout.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> ATTCAT(model).attribute(torch.rand(1, 3, 224, 224), target=281).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "attention"
    source = "Qiang et al., NeurIPS 2022"
    needs_stream_gradients = "blocks"

    @contract
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: Any = None,
        *,
        output: Output = "logit",
        readout_row: bool = False,
        tokens: Tokens = "output",
        **common: Unpack[Layered],
    ) -> TensorOrTuple:
        """Explain each image's target.

        Args:
            output: ``y``, the target's ``"logit"``, as published, or its softmax ``"probability"``.
            readout_row: Use the attention that the classified token pays, instead of the mean over all queries. A model
                with a pooling head classifies none of its blocks' rows: there the mean is used in either case.
            tokens: ``token_i`` is the block's ``"output"``, as in the paper, or its ``"input"``, as in its code.
            layers: The blocks to sum over, counted from 0 (negative: from the end).
        """
        return self._explain(inputs, target, _ATTCATUpdate(readout_row, tokens), common, output)

    def _row(self, call: Call, wanted: Wanted, passed: Pass, update: Update) -> torch.Tensor:
        assert isinstance(update, _ATTCATUpdate)
        return carry(passed, update, update.start(passed))


class _ATTCATUpdate(Update):
    """Carries two rows: the read-out, which passes back only through merging, and the sum so far."""

    by_place = True

    def __init__(self, readout_row: bool, tokens: Tokens) -> None:
        FLAG.check("readout_row", readout_row)
        choice("output", "input").check("tokens", tokens)
        self._readout_row, self._of_input = readout_row, tokens == "input"
        self._activations: dict[int, torch.Tensor] = {}

    def start(self, passed: Pass) -> torch.Tensor:
        """Both rows at the final tokens, ``(B, 2, n)``.

        Raises:
            UnsupportedModelError: If no block has attention.
        """
        if not any(stage.attentions for stage in passed.stages):
            raise UnsupportedModelError(
                "ATTCAT sums over the blocks with attention, and this model has attention in its pooling head only. "
                "VTranM and AttentionRollout read it."
            )
        self._activations = {}
        for stage in passed.stages:
            block = stage.stage.block
            if stage.branches and self._of_input and stage.stream_gradient is not None:
                self._activations.setdefault(block, class_activation(stage.stream, stage.stream_gradient))
            elif stage.branches and not self._of_input and stage.following_gradient is not None:
                self._activations[block] = class_activation(stage.following, stage.following_gradient)
        self._readout_row = self._readout_row and passed.pooling is None
        sums = torch.zeros_like(widen(passed.stages[-1].following[..., 0]))
        return torch.stack([passed.readout if self._readout_row else sums, sums], 1)

    def attention(self, row: torch.Tensor, record: AttentionRecord) -> torch.Tensor:
        activation = self._activations[record.block]
        queries = row[:, 0] if self._readout_row else record.equal_queries
        if record.merging is not None and not self._of_input:  # the keys are tokens of the old grid
            activation = record.merging.tokens.scatter(activation)
        if record.sources is not None:
            activation = record.sources.gather(activation)
        added = received_attention(record.attention, queries) * activation
        return torch.stack([torch.zeros_like(added), added], 1)

    def finish(self, row: torch.Tensor, stream: torch.Tensor) -> torch.Tensor:
        return row[:, 1]
