"""Attention of all tokens to fewer keys, each made of several tokens by a strided convolution, as in PVT and Twins."""

from __future__ import annotations

from typing import Any

from captum_astro.layouts.convolution import convolution
from captum_astro.layouts.steps import Linear, Tap
from captum_astro.layouts.structure import AttentionBranch


def attention_with_reduced_keys(attn: Any, name: str, entering: Tap) -> AttentionBranch:
    """Describe an attention with ``q``, ``kv`` and ``proj``, and with ``sr`` and ``norm`` unless it sees every token.

    Args:
        attn: The attention.
        name: Its dotted path.
        entering: The normalised tokens that enter it.
    """
    reduced = None if attn.sr is None else convolution(attn.sr, name, attn.norm, entering, Tap(attn.norm, "output"))
    return AttentionBranch(
        name,
        attn,
        (Linear(attn.proj.weight, attn.proj.bias),),
        lambda: attn.kv.weight[attn.dim :].reshape(attn.num_heads, -1, attn.dim),
        reads=Tap(attn.kv),
        entering=entering if reduced is None else None,
        reduced=reduced,
    )
