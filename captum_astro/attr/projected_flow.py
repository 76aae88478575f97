"""Projected flow."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from captum_astro.attr._base import TokenAttribution
from captum_astro.attr._contract import Layered, TensorOrTuple, contract
from captum_astro.capture.call import Call
from captum_astro.capture.capture import capture
from captum_astro.capture.carry import Update, carry
from captum_astro.capture.gradient_rules import ConstantDecisions
from captum_astro.capture.records import AttentionRecord, Pass, StageRecord
from captum_astro.capture.target import Output
from captum_astro.capture.wanted import Wanted
from captum_astro.functional.projected_flow import contributing, flow_update, share_of_length, shared

if TYPE_CHECKING:
    from typing_extensions import Unpack


class ProjectedFlow(TokenAttribution):
    r"""How far what each token adds moves the others towards the class, as a fraction of their length.

    The result is a row of the product of the layers' maps :math:`U_L \dots U_1` with, for each attention layer,

    .. math::

        U_{ij} = \delta_{ij} + \frac{\sum_h (A_{h,ij} \, \partial y / \partial A_{h,ij})^+}{\|g_i\| \, \|E'_i\|},

    :math:`E'` the tokens that leave the layer, :math:`g = \partial y / \partial E'`. The gradients are those of the
    model with attention weights, the norms' standard deviations and the activations' gates held constant: a linear
    model of the same output, in which :math:`A \, \partial y / \partial A` is exactly what arrives at ``y`` along
    each edge. The row is that of the class token; of several tokens that are averaged, each counts by what it
    contributes to ``y``, and so does each token that a pooling head reads.

    Source: this package. Costs one forward and one backward pass to the tokens; memory grows linearly with their
    number.

    Args:
        forward_func: A timm Vision Transformer, a wrapper around one, or a model with a registered layout.

    Raises:
        UnsupportedModelError: If the model has no layout, its layers compute something other than the layout says, or
            an operation has no rule.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> ProjectedFlow(model).attribute(torch.rand(1, 3, 224, 224), target=281).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "attention"
    source = "this package"
    needs_stream_gradients = "stages"

    @contract
    def attribute(
        self, inputs: TensorOrTuple, target: Any = None, *, output: Output = "probability", **common: Unpack[Layered]
    ) -> TensorOrTuple:
        """Explain each image's target.

        Args:
            output: ``y``: the target's softmax ``"probability"``, so what speaks for it against the other classes, or
                its ``"logit"`` alone. Log-probability and log-odds give the same map as the probability.
        """
        return self._explain(inputs, target, _FlowUpdate(), common, output, least=torch.float32)

    def _pass(self, call: Call, wanted: Wanted) -> Pass:
        return capture(call, replace(wanted, rules=ConstantDecisions(call.model)))

    def _row(self, call: Call, wanted: Wanted, passed: Pass, update: Update) -> torch.Tensor:
        assert isinstance(update, _FlowUpdate)
        return carry(passed, update, update.start(passed))


class _FlowUpdate(Update):
    """``U = I + sum_h (A * dy/dA)^+ / (|g| |E'|)`` for attention."""

    merges_by_length = True

    def start(self, passed: Pass) -> torch.Tensor | None:
        """The read-out with each final token counted by what it contributes to ``y``; None for a pooling head."""
        last = passed.stages[-1]
        if passed.pooling is not None or last.following_gradient is None:
            return None
        return contributing(passed.readout, last.following, last.following_gradient)

    def branching(self, row: torch.Tensor, record: StageRecord) -> torch.Tensor:
        if record.following_gradient is None:
            return row
        return share_of_length(row, record.following, record.following_gradient)

    def attention(self, row: torch.Tensor, record: AttentionRecord) -> torch.Tensor:
        found = flow_update(row, record.attention, record.gradient)
        return shared(row, found) if record.block < 0 else found
