"""One call of PyTorch's fused attention, as its arguments."""

from __future__ import annotations

from typing import NamedTuple

import torch

from captum_astro.functional.attention import Softmax


class FusedCall(NamedTuple):
    """The arguments of one ``F.scaled_dot_product_attention``, with keys and values expanded per head."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    bias: torch.Tensor | None
    dropout: float
    causal: bool
    scale: float

    @classmethod
    def of(
        cls,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> FusedCall:
        """Has the signature of that function."""
        if enable_gqa:
            key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        key, value = (x.expand(*query.shape[:-2], *x.shape[-2:]) for x in (key, value))  # multi-query: one for all
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        bias = None if attn_mask is None else attn_mask.detach()
        return cls(query, key, value, bias, dropout_p, is_causal, scale)

    @property
    def map(self) -> Softmax:
        """The attention map, without a graph."""
        return Softmax(self.query.detach(), self.key.detach(), self.scale, self.bias, self.causal)
