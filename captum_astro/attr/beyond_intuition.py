"""Beyond Intuition."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch

from captum_astro.attr._base import TokenAttribution
from captum_astro.attr._contract import Layered, TensorOrTuple, contract
from captum_astro.capture.call import Call
from captum_astro.capture.capture import capture
from captum_astro.capture.carry import Update, carry
from captum_astro.capture.records import AttentionRecord, Pass
from captum_astro.capture.target import Output
from captum_astro.capture.wanted import Wanted
from captum_astro.functional.attention import attention_gradient
from captum_astro.functional.beyond_intuition import feedback, length_ratios
from captum_astro.functional.inflow import head_importance
from captum_astro.functional.rollout import mixed_row
from captum_astro.kinds import choice, whole
from captum_astro.layouts.errors import UnsupportedModelError

if TYPE_CHECKING:
    from typing_extensions import Unpack

Form = Literal["tokens", "heads"]


class BeyondIntuition(TokenAttribution):
    """Attention carried through the layers, times the gradient of the last map, averaged from a black image to this.

    ``U = I + E_h[A_h] diag(|E'| / |E|)``, E' what a token adds where it has all attention; or
    ``U = I + sum_h I_h A_h``, I_h the mean of ``|A_h^T dy/dA_h|`` as a share. It is defined where each block has one
    attention layer over all tokens, and the class is read from the tokens of the last.

    Source: Chen et al., "Beyond Intuition: Rethinking Token Attributions inside Transformers", TMLR 2023, as its public
    code computes it.

    Args:
        forward_func: A timm Vision Transformer, a wrapper around one, or a model with a registered layout.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224", depth=2).eval()
        >>> BeyondIntuition(model).attribute(torch.rand(1, 3, 224, 224), target=281, steps=5).shape
        torch.Size([1, 3, 224, 224])
    """

    family = "attention"
    source = "Chen et al., TMLR 2023"

    @contract
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: Any = None,
        *,
        output: Output = "logit",
        form: Form = "tokens",
        steps: int = 20,
        start_layer: int = 0,
        **common: Unpack[Layered],
    ) -> TensorOrTuple:
        """Explain each image's target.

        Args:
            output: ``y``, the target's ``"logit"``, as published, or its softmax ``"probability"``.
            form: Weight attention by ``"tokens"``, their lengths, or by ``"heads"``, their importance.
            steps: The number of images from ``0`` to the input, at which the last map's gradient is averaged.
            start_layer: The first block whose attention is included. The authors' code leaves out the first five blocks
                of 12 by tokens, and the first three by heads.

        Raises:
            UnsupportedModelError: If the model has layers, or a head, for which it is not defined.
        """
        choice("tokens", "heads").check("form", form)
        whole(least=2).check("steps", steps)
        update = _BeyondIntuitionUpdate(form, steps)
        return self._explain(inputs, target, update, common, output, start_layer=start_layer)

    def _row(self, call: Call, wanted: Wanted, passed: Pass, update: Update) -> torch.Tensor:
        assert isinstance(update, _BeyondIntuitionUpdate)
        assert call.layout is not None
        update.check(passed, type(call.layout.model).__name__, call.layout.reads_text)
        read = passed.readout.any(0).nonzero().flatten()
        batch, tokens = passed.readout.shape
        start = torch.eye(tokens, dtype=passed.readout.dtype, device=passed.readout.device)[read].expand(batch, -1, -1)
        slopes, last = [], replace(wanted, blocks={call.layout.last_attention})
        for fraction in torch.linspace(0, 1, update.steps).tolist():
            darker = capture(replace(call, inputs=call.inputs * fraction), last)
            (record,) = update.attentions(darker)
            slopes.append(attention_gradient(record.gradient[:, :, read], record.attention.value))
        reasoned = feedback(slopes) * carry(passed, update, start)
        return torch.einsum("bm,bmn->bn", passed.readout[:, read], reasoned)


class _BeyondIntuitionUpdate(Update):
    """Carries one row for each token that is read."""

    def __init__(self, form: Form, steps: int) -> None:
        self.steps, self._by_heads = steps, form == "heads"

    def check(self, passed: Pass, model: str, reads_text: bool) -> None:
        """Check that the method is defined for a model.

        Raises:
            UnsupportedModelError: If it is not.
        """
        why = None
        if reads_text:
            why = "token ids cannot be made darker"
        elif passed.pooling is not None:
            why = "its pooling head classifies none of the blocks' tokens"
        elif any(stage.merging is not None for stage in passed.stages):
            why = "it has several resolutions"
        if why is not None:
            raise UnsupportedModelError(
                f"BeyondIntuition is not defined for {model}: {why}. VTranM and TransformerMM follow such models."
            )
        self.attentions(passed)

    def attentions(self, passed: Pass) -> list[AttentionRecord]:
        """The recorded attention layers.

        Raises:
            UnsupportedModelError: If one does not go from all tokens to all, or stands beside another.
        """
        found = [stage.attentions for stage in passed.stages if stage.attentions]
        for records in found:
            if len(records) > 1 or not records[0].over_all:
                raise UnsupportedModelError(
                    f"BeyondIntuition is defined for one attention layer over all tokens in each block, which block "
                    f"{records[0].block} has not ({records[0].branch.name}). VTranM and TransformerMM follow such "
                    f"models."
                )
        return [records[0] for records in found]

    def attention(self, row: torch.Tensor, record: AttentionRecord) -> torch.Tensor:
        if self._by_heads:
            return mixed_row(row, record.attention, head_importance(record.attention, record.gradient))
        value, output_map, query_scale = record.transformed(include_norm=True)
        if query_scale is not None or record.gates(include_norm=True) is not None:
            raise UnsupportedModelError(
                f"What a token adds at {record.branch.name} has another length for each query, because of a norm or a "
                f"gate after the heads. Pass form='heads' (BeyondIntuition:form=heads to a command)."
            )
        return mixed_row(row, record.attention) * length_ratios(record.stream, value, output_map)[:, None]
