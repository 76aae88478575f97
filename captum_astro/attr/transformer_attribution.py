"""Transformer Attribution."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from captum.log import log_usage

from captum_astro.attr._base import AttributeTo, TensorOrTuple, TokenAttribution, TokenWalker
from captum_astro.capture.attention_relevance import attention_relevance
from captum_astro.capture.records import AttentionRecord, StageRecord
from captum_astro.functional.attention import attention_gradient
from captum_astro.functional.transformer_attribution import transformer_attribution_update


class TransformerAttribution(TokenAttribution):
    """Relevance of the attention maps times their gradients, through the layers: ``U = I + E_h[(dy/dA * R_A)^+]``.

    ``R_A`` is the relevance that `LRP` gives an attention map, starting with 1 at the target; y is the logit. Rows are
    not normalised. One pass brings the gradients, another the relevance, layer by layer.

    Source: Chefer, Gur, Wolf, "Transformer Interpretability Beyond Attention Visualization", CVPR 2021 (arXiv
    2012.09838), Eq. 13 and 14, as its public code computes it for one image; here each sample of a batch is normalised
    on its own. It was published for models with a class token. LRP methods may be covered by patents.

    Args:
        forward_func: A timm Vision Transformer, a wrapper of one, or a model with a registered layout.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> TransformerAttribution(model).attribute(torch.rand(1, 3, 224, 224), target=281).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "propagation"
    source = "Chefer et al., CVPR 2021, arXiv 2012.09838"

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
        """Explain each image's target.

        Args:
            inputs: Images ``(B, C, H, W)``, or a tuple with that one tensor.
            target: The class to explain, in any form that Captum takes.
            start_layer: The first block that counts.
            additional_forward_args: Passed to the model after the images.
            internal_batch_size: Explain so many images at a time.
            attribute_to: ``"input"`` gives the inputs' shape, the pixel map shared equally among the channels;
                ``"pixels"`` gives ``(B, 1, H, W)``, ``"grid"`` ``(B, 1, rows, columns)`` and ``"tokens"`` ``(B, n)``.

        Returns:
            Attributions of the inputs' dtype and device, not normalised; a tuple for a tuple.

        Raises:
            AssertionError: If the target is of no form that Captum takes, or is needed and not given.
            IndexError: If the target is out of range.
            ValueError: If an argument is not one of its values, or the images cannot be explained.
            UnsupportedModelError: If an operation of the model has no rule.
        """
        return self._explain(
            inputs,
            target,
            additional_forward_args,
            internal_batch_size,
            attribute_to,
            lambda layout: _GradientKeeper(),
            layers=slice(start_layer, None),
            then=_second_pass,
        )


class _GradientKeeper(TokenWalker):
    """Keeps what the second pass needs of the first: values and gradients at the heads' outputs, and the read-out."""

    def __init__(self) -> None:
        self.records: dict[str, tuple[int, AttentionRecord]] = {}
        self.readout = torch.empty(0)
        self.pooling: AttentionRecord | None = None

    def begin(self, readout: torch.Tensor, pooling: AttentionRecord | None) -> None:
        self.readout, self.pooling = readout, pooling

    def step(self, record: StageRecord) -> None:
        for branch in record.branches:
            if isinstance(branch, AttentionRecord):
                self.records[branch.branch.name] = (id(record.stage), branch)

    def end(self, stream: torch.Tensor) -> None:
        self.tokens = self.readout


def _second_pass(keeper: TokenWalker, model: Any, layout: Any, forward: Any, seed: Any) -> None:
    """Carry the row back as the relevance of each attention map arrives."""
    assert isinstance(keeper, _GradientKeeper)
    row = _Row(keeper)
    attention_relevance(layout, model, forward, seed, row.arrived)
    keeper.tokens = row.row


class _Row:
    def __init__(self, keeper: _GradientKeeper) -> None:
        self._keeper = keeper
        self._stage: int | None = None
        self._entering = self.row = keeper.readout

    def arrived(self, name: str, which: int, queries: slice, relevance: torch.Tensor) -> None:
        """Use the relevance of some rows of one softmax of a layer."""
        pooling = self._keeper.pooling
        if pooling is not None and name == pooling.branch.name:
            if self._stage is None:
                tokens = pooling.first_key + pooling.attention.value.shape[2]
                self._stage, self.row = -1, self.row.new_zeros(len(self.row), tokens)
            self.row = self.row + F.pad(self._update(pooling, which, queries, relevance), (pooling.first_key, 0))
            return
        if name not in self._keeper.records:
            return
        stage, record = self._keeper.records[name]
        if stage != self._stage:  # parallel layers of one stage all start from the same row
            self._stage, self._entering = stage, self.row
        self.row = self.row + self._update(record, which, queries, relevance)

    def _update(self, record: AttentionRecord, which: int, queries: slice, relevance: torch.Tensor) -> torch.Tensor:
        assert record.gradient is not None
        gradient = attention_gradient(record.gradient[:, :, queries], record.attention.value)
        gradient = gradient * record.attention.weights[which]
        return transformer_attribution_update(self._entering[:, queries], relevance, gradient)
