"""AGCAM: attention guided CAM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from captum_astro.attr._base import TokenAttribution
from captum_astro.attr._contract import Layered, TensorOrTuple, contract
from captum_astro.capture.call import Call
from captum_astro.capture.carry import Update, carry, through
from captum_astro.capture.records import AttentionRecord, Pass, StageRecord
from captum_astro.capture.target import Output
from captum_astro.capture.wanted import Wanted
from captum_astro.functional.agcam import agcam_map
from captum_astro.layouts.errors import UnsupportedModelError

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AGCAM(TokenAttribution):
    """Positive gradients at the attention maps times the sigmoid of the scores, summed over heads and layers.

    ``sum over layers and heads of relu(dy/dA_h[r, j]) sigmoid(Z_h[r, j])``, with Z the scores before the softmax and r
    the row that the model classifies, or the weighted mean of the rows that it averages. The gradient reaches a layer
    past the attention of later ones, along the residual stream and through the feed-forward layers.

    Source: Leem and Seo, "Attention Guided CAM: Visual Explanations of Vision Transformer Guided by Self-Attention",
    AAAI 2024 (arXiv 2402.04563), as its public code computes it. It was published for models with a class token.

    Args:
        forward_func: A timm Vision Transformer, a wrapper around one, or a model with a registered layout.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> AGCAM(model).attribute(torch.rand(1, 3, 224, 224), target=281).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "attention"
    source = "Leem and Seo, AAAI 2024, arXiv 2402.04563"
    cuts_attention = True

    @contract
    def attribute(
        self, inputs: TensorOrTuple, target: Any = None, *, output: Output = "logit", **common: Unpack[Layered]
    ) -> TensorOrTuple:
        """Explain each image's target.

        Args:
            output: ``y``, the target's ``"logit"``, as published, or its softmax ``"probability"``.
            layers: The blocks to sum over, counted from 0 (negative: from the end). A pooling head is always included.

        Raises:
            UnsupportedModelError: If the scores of an attention layer cannot be seen, as its map is no plain softmax.
        """
        return self._explain(inputs, target, _AGCAMUpdate(), common, output)

    def _row(self, call: Call, wanted: Wanted, passed: Pass, update: Update) -> torch.Tensor:
        assert call.layout is not None
        readout = passed.readout
        if passed.pooling is None:
            start = torch.stack([readout, torch.zeros_like(readout)], 1)
        else:  # it classifies none of the blocks' rows, so that all of them count alike
            start = through(torch.stack([readout, torch.zeros_like(readout)], 1), passed.pooling, update)
            start = torch.stack([torch.full_like(start[:, 1], 1 / start.shape[-1]), start[:, 1]], 1)
        return carry(passed, _AGCAMUpdate(_read(start[:, 0]), call.layout.num_prefix_tokens), start)


def _read(row: torch.Tensor) -> range:
    """From the first token that has a weight in an image to the last, often the class token only.

    The host waits for a device here, once, so that no layer has to.
    """
    places: list[int] = row.any(0).nonzero().flatten().tolist()
    return range(places[0], places[-1] + 1) if places else range(0)


class _AGCAMUpdate(Update):
    """Carries two rows: the read-out, which passes back only through merging, and the sum so far.

    Args:
        read: The final tokens in the read-out; None for all queries.
        prefix: The number of prefix tokens, which keep their places where tokens are merged.
    """

    by_place = True

    def __init__(self, read: range | None = None, prefix: int = 0) -> None:
        self._read, self._prefix = read, prefix

    def attention(self, row: torch.Tensor, record: AttentionRecord) -> torch.Tensor:
        if any(part.scores(0, 1) is None for part in record.attention.maps):
            raise UnsupportedModelError(
                f"AGCAM needs the scores before the softmax, but the map of {record.branch.name} is no plain "
                f"softmax. TransformerMM and LeGrad need the map only."
            )
        read = self._read if record.outputs is None else None
        read = range(record.attention.queries) if read is None else read
        added = agcam_map(row[:, 0], record.attention, record.gradient, read)
        return torch.stack([torch.zeros_like(added), added], 1)

    def passing(self, row: torch.Tensor, record: StageRecord) -> torch.Tensor:
        if record.merging is not None and self._read is not None and self._read.stop > self._prefix:
            self._read = None  # patches come from several places
        return row

    def finish(self, row: torch.Tensor, stream: torch.Tensor) -> torch.Tensor:
        return row[:, 1]
