"""InFlow: information flow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from captum_astro.attr._base import TokenAttribution
from captum_astro.attr._contract import Layered, TensorOrTuple, contract
from captum_astro.capture.call import Call
from captum_astro.capture.capture import capture_early
from captum_astro.capture.carry import Update, carry
from captum_astro.capture.early import Early
from captum_astro.capture.records import AttentionRecord, FeedForwardRecord, Pass, StageRecord
from captum_astro.capture.target import Output
from captum_astro.capture.wanted import Wanted
from captum_astro.functional.inflow import feed_forward_scale, head_importance, inflow_row, residual_shares
from captum_astro.layouts.errors import UnsupportedModelError

if TYPE_CHECKING:
    from typing_extensions import Unpack


class InFlow(TokenAttribution):
    """A rollout whose residual connections are weighted by the lengths of what they add, and attention by gradients.

    The maximum over heads of the attention, times the mean over heads of the gradient of the block's own class score:
    that of the mean of all its normalised tokens. It is defined for blocks of an attention layer over all tokens and a
    feed-forward layer, one after the other.

    Source: Walker et al., "Explaining ViTs Using Information Flow", AISTATS 2025, as its public code computes it.

    Args:
        forward_func: A timm Vision Transformer, a wrapper around one, or a model with a registered layout.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224", depth=2).eval()
        >>> InFlow(model).attribute(torch.rand(1, 3, 224, 224), target=281).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "attention"
    source = "Walker et al., AISTATS 2025"

    @contract
    def attribute(
        self, inputs: TensorOrTuple, target: Any = None, *, output: Output = "logit", **common: Unpack[Layered]
    ) -> TensorOrTuple:
        """Explain each image's target.

        Args:
            output: The target's ``"logit"``, as published, or its softmax ``"probability"``.

        Raises:
            UnsupportedModelError: If the model has blocks, or a head, for which it is not defined.
        """
        return self._explain(inputs, target, _InFlowUpdate(), common, output)

    def _row(self, call: Call, wanted: Wanted, passed: Pass, update: Update) -> torch.Tensor:
        assert isinstance(update, _InFlowUpdate)
        assert call.layout is not None
        if call.layout.pooled is None:
            raise UnsupportedModelError(
                f"InFlow needs the class score of a mean of tokens, which the head of "
                f"{type(call.layout.model).__name__} does not give. VTranM and TransformerMM follow it."
            )
        early = Early(tuple(update.blocks(passed)), "normalised")
        gradients = {
            record.block: record.gradient
            for read in capture_early(call, wanted, early)
            for stage in read.stages
            for record in stage.attentions
        }
        return carry(passed, update.with_gradients(gradients))


class _InFlowUpdate(Update):
    """The whole matrix of a block, at its attention layer: nothing else is passed on there."""

    def __init__(self) -> None:
        self._feed_forward: dict[int, torch.Tensor] = {}
        self._added: dict[int, torch.Tensor] = {}
        self._gradients: dict[int, torch.Tensor] = {}

    def blocks(self, passed: Pass) -> list[int]:
        """The recorded blocks, whose lengths are noted.

        Raises:
            UnsupportedModelError: If one is no attention layer over all tokens, followed by a feed-forward layer.
        """
        self._feed_forward, self._added, stages = {}, {}, dict[int, list[StageRecord]]()
        for stage in passed.stages:
            if stage.branches:
                stages.setdefault(stage.stage.block, []).append(stage)
        for block, found in stages.items():
            branches = [branch for stage in found for branch in stage.branches]
            if not (
                len(found) == len(branches) == 2
                and isinstance(branches[0], AttentionRecord)
                and branches[0].over_all
                and isinstance(branches[1], FeedForwardRecord)
                and all(x is None for x in (branches[1].outputs, branches[1].sources, *(s.merging for s in found)))
            ):
                names = ", ".join(branch.branch.name for branch in branches)
                raise UnsupportedModelError(
                    f"InFlow is defined for blocks of an attention layer over all tokens and a feed-forward layer "
                    f"after it, which block {block} is not ({names}). Leave it out by layers=, or use VTranM, which "
                    f"measures lengths in such blocks, too."
                )
            first, second = found
            self._added[block] = (first.following if first.summed is None else first.summed) - first.stream
            self._feed_forward[block] = feed_forward_scale(second.stream, branches[1].output)
        return list(stages)

    def with_gradients(self, gradients: dict[int, torch.Tensor]) -> _InFlowUpdate:
        """Itself, with the gradient of each block's own score at its heads' outputs."""
        self._gradients = gradients
        return self

    def passing(self, row: torch.Tensor, record: StageRecord) -> torch.Tensor:
        return torch.zeros_like(row) if record.attentions else row

    def attention(self, row: torch.Tensor, record: AttentionRecord) -> torch.Tensor:
        scale = self._feed_forward[record.block]
        own, other = residual_shares(record.residual, self._added[record.block])
        importance = head_importance(record.attention, record.gradient)
        gradient = self._gradients[record.block]
        return inflow_row(row, record.attention, importance, gradient, (own * scale, other * scale))
