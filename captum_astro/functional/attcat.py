"""ATTCAT: the tokens' class activations, weighted by the attention that they receive.

Source: Qiang, Pan, Li, Li, Jang, Zhu, "AttCAT: Explaining Transformers via Attentive Class Activation Tokens",
NeurIPS 2022, Eq. 6 to 8::

    CAT_i = sum over the channels of (token_i * dy/dtoken_i),   AttCAT_i = sum over the layers of a_i CAT_i

with ``token_i`` the block's output and ``a_i`` the attention that token i receives, the mean over heads and queries.
"""

from __future__ import annotations

import torch

from captum_astro.functional.attention import Attention, widen
from captum_astro.functional.rollout import mixed_row


def class_activation(tokens: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """``sum over the channels of token * dy/dtoken``: ``(B, n)`` from two ``(B, n, d)``."""
    return (widen(tokens) * widen(gradient)).sum(-1)


def received_attention(attention: Attention, row: torch.Tensor | None = None) -> torch.Tensor:
    """The attention that each token receives, averaged over the heads.

    Args:
        attention: The layer.
        row: Weights of the queries, ``(B, q)``; equal by default.

    Returns:
        ``(B, n)``.
    """
    if row is None:
        batch, queries = attention.value.shape[0], attention.queries
        row = widen(attention.value).new_full((batch, queries), 1 / queries)
    return mixed_row(row, attention)
