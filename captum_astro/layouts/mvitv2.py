"""timm's MViTv2: queries, keys and values pooled by convolutions; the queries are added to what they attend to."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from timm.models.mvitv2 import MultiScaleAttention, MultiScaleVit
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, convolution_map, tail_map, with_prefix
from captum_astro.layouts.base import Layout, register_layout
from captum_astro.layouts.convolution import MAXIMUM, dense
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Linear, Norm, Step, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Merging, Stage


@register_layout(MultiScaleVit)
class MViTv2Layout(Layout):
    """Blocks are numbered consecutively through all stages. The tokens are those of the first stage's grid.

    Raises:
        UnsupportedModelError: If the model returns all of its tokens, or pools in another way than by convolutions
            after the projections.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        if self._model.global_pool not in ("avg", "token"):
            raise UnsupportedModelError(
                "MultiScaleVit returns all of its tokens. Create it with global_pool='avg', or 'token' with a class "
                "token."
            )
        self.num_prefix_tokens = self._model.num_prefix_tokens
        self.stages = []
        number = 0
        for part, stage in enumerate(self._model.stages):
            for index, block in enumerate(stage.blocks):
                self.stages += _block(block, number, f"stages.{part}.blocks.{index}", self.num_prefix_tokens)
                number += 1
        self.final_stream = Tap(self._model.norm)
        self.pooled = (Tap(self._model.norm, "output"), Tap(self._model.head.drop))

    def grid(self, height: int, width: int) -> Grid:
        conv = self._model.patch_embed.proj
        rows, columns = (
            (side + 2 * pad - kernel) // stride + 1
            for side, pad, kernel, stride in zip(
                (height, width), conv.padding, conv.kernel_size, conv.stride, strict=True
            )
        )
        return rows, columns

    def extent(self, height: int, width: int) -> tuple[int, int]:
        stride, (rows, columns) = self._model.patch_embed.proj.stride, self.grid(height, width)
        return rows * int(stride[0]), columns * int(stride[1])

    def readout(self, tokens: int) -> torch.Tensor:
        weights = torch.zeros(tokens, dtype=torch.float64)
        weights[slice(1) if self._model.global_pool == "token" else slice(self.num_prefix_tokens, None)] = 1
        return weights / weights.sum()


def _block(block: Any, index: int, path: str, prefix: int) -> list[Stage]:
    attn = block.attn
    if not isinstance(attn, MultiScaleAttention) or attn.mode != "conv":
        raise UnsupportedModelError(
            f"{path}.attn pools before its projections, or by something other than a convolution for each head. Models "
            f"made with pool_first=False and mode='conv' have a layout, as all that timm registers."
        )
    normalised, project = Tap(block.norm1, "output"), Linear(attn.proj.weight)
    attention = AttentionBranch(
        f"{path}.attn",
        attn,
        (Linear(attn.proj.weight, attn.proj.bias),),
        lambda: attn.qkv.weight[2 * attn.dim_out :].reshape(attn.num_heads, attn.head_dim, -1),
        entering=normalised,
        reduced_values=_pooled(attn, "v", f"{path}.attn.pool_v", prefix),
    )
    branches: tuple[AttentionBranch | FeedForwardBranch, ...] = (attention,)
    if attn.residual_pooling:
        pooled, name = _pooled(attn, "q", f"{path}.attn.pool_q", prefix), f"{path}.attn.q"
        if pooled is None:
            queries = FeedForwardBranch(name, _third(attn, 0), (project,))
        else:
            mixed = Merging(pooled.name, pooled.tokens, (*pooled.steps, project), pooled.entering)
            queries = FeedForwardBranch(name, Tap(attn.norm_q, "output", arrange=_joined), (project,), sources=mixed)
        branches = (*branches, queries)
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.drop_path2, "output"))
    return [
        Stage(index, Tap(block.norm1), branches, merging=_shortcut(block, path, prefix)),
        Stage(index, Tap(block.norm2), (feed_forward,), merging=_widening(block, path, prefix)),
    ]


def _third(attn: Any, which: int) -> Tap:
    """The queries, keys or values as they leave their projection."""
    return Tap(attn.qkv, "output", arrange=partial(_part, which=which))


def _part(x: torch.Tensor, which: int) -> torch.Tensor:
    return x.chunk(3, -1)[which]


def _joined(x: torch.Tensor) -> torch.Tensor:
    """Heads ``(B, H, n, d)`` side by side, as tokens."""
    return x.transpose(1, 2).flatten(2)


def _pooled(attn: Any, kind: str, name: str, prefix: int) -> Merging | None:
    """A convolution of the patches in each head, the same in all; prefix tokens are one more source of themselves."""
    conv = getattr(attn, f"pool_{kind}")
    if conv is None:
        return None
    norm, width = getattr(attn, f"norm_{kind}"), attn.dim_out
    weight = dense(conv.weight.repeat(attn.num_heads, 1, 1, 1), width)
    if prefix:
        weight = torch.cat([weight, torch.eye(width).to(weight)], 1)
    seen = partial(_seen, size=conv.kernel_size, stride=conv.stride, padding=conv.padding, prefix=prefix)
    steps: tuple[Step, ...] = (Linear(weight), Norm(norm, per_head=True))
    return Merging(name, seen, steps, _third(attn, "qkv".index(kind)), Tap(norm, "output", arrange=_joined))


def _shortcut(block: Any, path: str, prefix: int) -> Merging | None:
    """Where a stage begins: tokens are projected, of which the maximum is taken, or one of the two."""
    pool, proj = block.shortcut_pool_attn, block.shortcut_proj_attn
    entering = None if proj is None else Tap(proj, "output")
    if pool is not None:
        seen = partial(_seen, size=pool.kernel_size, stride=pool.stride, padding=pool.padding, prefix=prefix)
        name = f"{path}.shortcut_pool_attn"
        return Merging(name, seen, entering=entering, maximum=True, approximate=MAXIMUM)
    return None if proj is None else _each(proj, f"{path}.shortcut_proj_attn", block.norm1, prefix)


def _widening(block: Any, path: str, prefix: int) -> Merging | None:
    """What the last feed-forward layer of a stage adds to, if the stages widen at their end."""
    proj = block.shortcut_proj_mlp
    return None if proj is None else _each(proj, f"{path}.shortcut_proj_mlp", block.norm2, prefix)


def _each(proj: nn.Linear, name: str, norm: nn.Module, prefix: int) -> Merging:
    """Every token by itself, projected after a norm."""
    return Merging(name, partial(_own, prefix=prefix), (Linear(proj.weight, proj.bias),), Tap(norm, "output"))


def _own(grid: Grid, prefix: int) -> TokenMap:
    return tail_map(prefix + grid[0] * grid[1], 0)


def _seen(grid: Grid, size: Grid, stride: Grid, padding: Grid, prefix: int) -> TokenMap:
    patches = convolution_map(grid, tuple(size), tuple(stride), tuple(padding))
    return with_prefix(patches, prefix) if prefix else patches
