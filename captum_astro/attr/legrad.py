"""LeGrad."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from captum_astro.attr._base import TokenAttribution
from captum_astro.attr._contract import Layered, TensorOrTuple, contract
from captum_astro.capture.call import Call
from captum_astro.capture.capture import capture, capture_early
from captum_astro.capture.carry import Update, carry, through
from captum_astro.capture.early import Early
from captum_astro.capture.records import AttentionRecord, Pass
from captum_astro.capture.target import Output
from captum_astro.capture.wanted import Wanted
from captum_astro.functional.legrad import legrad_map
from captum_astro.kinds import FLAG
from captum_astro.layouts.errors import UnsupportedModelError

if TYPE_CHECKING:
    from typing_extensions import Unpack


class LeGrad(TokenAttribution):
    """The positive gradient of each layer's own class score at its attention map, summed over the layers.

    ``sum over the blocks of the mean over heads and queries of (ds_l/dA_l)^+``, with ``s_l`` the class score that the
    model's own norm and head give the mean of block l's tokens. With a pooling head, that head reads each block's
    tokens, and the gradient is that at its map.

    Source: Bousselham et al., "LeGrad: An Explainability Method for Vision Transformers via Feature Formation
    Sensitivity", ICCV 2025 (arXiv 2404.03214), as its public code computes it.

    Args:
        forward_func: A timm Vision Transformer, a wrapper around one, or a model with a registered layout.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> LeGrad(model).attribute(torch.rand(1, 3, 224, 224), target=281, layers=[-2, -1]).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "attention"
    source = "Bousselham et al., ICCV 2025, arXiv 2404.03214"

    @contract
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: Any = None,
        *,
        output: Output = "logit",
        averaged: bool = True,
        **common: Unpack[Layered],
    ) -> TensorOrTuple:
        """Explain each image's target.

        Args:
            output: ``s_l``, the target's ``"logit"``, or its softmax ``"probability"``.
            averaged: Read the mean of all tokens of a block, as the authors' code does; False reads what the model
                itself reads of its final tokens, such as the class token. A pooling head reads all of them anyway.
            layers: The blocks to sum over, counted from 0 (negative: from the end). By default all whose tokens have
                the number and width of the final ones, so that the head can read them.

        Raises:
            UnsupportedModelError: If the head can read the tokens of no block with attention.
        """
        FLAG.check("averaged", averaged)
        update = _LeGradUpdate(averaged, common.get("layers") is not None)
        return self._explain(inputs, target, update, common, output)

    def _pass(self, call: Call, wanted: Wanted) -> Pass:
        return capture(call, replace(wanted, gradient=False))  # shows which blocks can be read

    def _row(self, call: Call, wanted: Wanted, passed: Pass, update: Update) -> torch.Tensor:
        assert isinstance(update, _LeGradUpdate)
        early = update.early(passed)
        read = [capture(call, replace(wanted, blocks=set()))] if early is None else capture_early(call, wanted, early)
        return torch.stack([carry(one, update, _start(one, update)) for one in read]).sum(0)


def _start(passed: Pass, update: Update) -> torch.Tensor:
    """What a pooling head gives the final tokens, summed over the blocks that it read; zero without one."""
    if passed.pooling is None:
        return torch.zeros_like(passed.readout)
    times = len(passed.pooling.attention.value) // len(passed.readout)
    found = through(passed.readout.repeat(times, 1), passed.pooling, update)
    return torch.stack(found.chunk(times)).sum(0)


class _LeGradUpdate(Update):
    """The map of one layer, added to the sum so far."""

    by_place = True

    def __init__(self, averaged: bool, chosen: bool) -> None:
        self._averaged, self._chosen = averaged, chosen

    def early(self, passed: Pass) -> Early | None:
        """The blocks to read; None for the final tokens, if the only attention is that of a pooling head.

        Raises:
            UnsupportedModelError: If the head can read the tokens of no block.
        """
        final, blocks = passed.stages[-1].following.shape, dict[int, bool]()
        attended = {stage.stage.block for stage in passed.stages if stage.attentions}
        for stage in passed.stages:
            if stage.stage.block in attended and stage.branches:
                blocks[stage.stage.block] = stage.following.shape == final
        if not attended and passed.pooling is not None:
            return None
        read = tuple(block for block, fits in blocks.items() if fits or self._chosen)
        if not read:
            raise UnsupportedModelError(
                f"LeGrad has the head read each block's tokens. It reads {tuple(final[1:])}, which no block with "
                f"attention gives. VTranM and TransformerMM need no such reading."
            )
        return Early(read, "tokens" if self._averaged else None)

    def attention(self, row: torch.Tensor, record: AttentionRecord) -> torch.Tensor:
        queries = row if record.block < 0 else record.equal_queries
        return legrad_map(queries, record.attention, record.gradient)
