"""Pooling heads of CLIP's ResNets: the mean of all tokens attends to itself and to each of them."""

from __future__ import annotations

from typing import Any

import torch

from captum_astro.functional.token_map import Grid, TokenMap
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Tap
from captum_astro.layouts.structure import AttentionBranch, Pooling


def attention_pooling_2d(pool: Any, name: str) -> Pooling:
    """Describe an ``AttentionPool2d`` or ``RotAttentionPool2d``; the vectors are those before its last projection.

    Args:
        pool: The head.
        name: Its dotted path.

    Raises:
        UnsupportedModelError: If it has a class token, another width inside, or does not pool.
    """
    if pool.cls_token is not None or pool.embed_dim != pool.in_features or pool.pool_type != "token":
        raise UnsupportedModelError(
            f"{name} pools by a class token or in another width. Build it without class_token, embed_dim and pool_type."
        )

    def value_weight() -> torch.Tensor:
        weight: torch.Tensor = pool.v.weight if pool.qkv is None else pool.qkv.weight[2 * pool.embed_dim :]
        return weight.reshape(pool.num_heads, pool.head_dim, -1)

    reads = Tap(pool.v if pool.qkv is None else pool.qkv)
    branch = AttentionBranch(name, pool, (), value_weight, reads=reads, sources=_with_mean)
    return Pooling(branch, _first, Tap(pool.drop, "output"))


def _first(queries: int) -> torch.Tensor:
    weights = torch.zeros(queries, dtype=torch.float64)
    weights[0] = 1
    return weights


def _with_mean(grid: Grid) -> TokenMap:
    """The mean of all tokens, then each token."""
    number = grid[0] * grid[1]
    each = torch.full((number, number), -1)
    each[:, 0] = torch.arange(number)
    return TokenMap(torch.cat([torch.arange(number)[None], each])[None], number)
