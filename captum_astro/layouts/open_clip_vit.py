"""open_clip's own VisionTransformer; its timm towers have timm's layouts."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from captum_astro.functional.token_map import Grid
from captum_astro.layouts.base import Layout, register_layout
from captum_astro.layouts.blocks import describe_blocks, register_block
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.multihead import multihead_attention
from captum_astro.layouts.readouts import mean_of
from captum_astro.layouts.steps import Linear, Norm, Scale, Step, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Pooling, Stage

_LIBRARY = "open_clip.transformer"


@register_layout(f"{_LIBRARY}.VisionTransformer")
class OpenClipLayout(Layout):
    """A class token, which is read, or the average of the patches; or attention pooling, as in CoCa.

    Raises:
        UnsupportedModelError: If it pools twice, returns all tokens, or keeps the batch in the second dimension.
    """

    num_prefix_tokens = 1

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        transformer, pool = self._model.transformer, self._model.attn_pool
        twice = getattr(self._model, "attn_pool_contrastive", None) is not None
        if twice or self._model.pool_type not in ("tok", "avg") or not getattr(transformer, "batch_first", True):
            raise UnsupportedModelError(
                f"{type(model).__name__} pools twice, returns all tokens, or has its batch in the second dimension. "
                f"Create it with pool_type='tok' or 'avg', and without attentional_pool='parallel' or 'cascade'."
            )
        self.stages = describe_blocks(transformer.resblocks, "transformer.resblocks")
        self.final_stream = Tap(transformer.resblocks[-1], "output")
        if pool is not None:
            branch = multihead_attention(pool.attn, "attn_pool.attn", Tap(pool.ln_k, "output"))
            self.pooling = Pooling(branch, self.readout, Tap(self._model.ln_post))

    def grid(self, height: int, width: int) -> Grid:
        rows, columns = self._model.patch_size
        return height // int(rows), width // int(columns)

    def readout(self, tokens: int) -> torch.Tensor:
        return mean_of(tokens, slice(1) if self._model.pool_type == "tok" else slice(1, None))


@register_block(f"{_LIBRARY}.ResidualAttentionBlock")
def _block(block: Any, index: int, path: str) -> list[Stage]:
    entering = Tap(block.ln_1, "output")
    return _stages(block, index, path, multihead_attention(block.attn, f"{path}.attn", entering, _scale(block.ls_1)))


@register_block(f"{_LIBRARY}.CustomResidualAttentionBlock")
def _custom_block(block: Any, index: int, path: str) -> list[Stage]:
    """With its own attention class: a factor for each head, a norm over all heads, a norm of what is added."""
    attn = block.attn
    heads: tuple[Step, ...] = ()
    if attn.head_scale is not None:
        heads = (Scale(attn.head_scale.flatten().repeat_interleave(attn.head_dim)),)
    project = Linear(attn.out_proj.weight, attn.out_proj.bias)
    attention = AttentionBranch(
        f"{path}.attn",
        attn,
        (*heads, *_norm(attn.ln_inner), project, *_norm(block.ln_attn), *_scale(block.ls_1)),
        lambda: attn.in_proj_weight.chunk(3)[2].unflatten(0, (attn.num_heads, -1)),
        entering=Tap(block.ln_1, "output"),
    )
    return _stages(block, index, path, attention)


def _stages(block: Any, index: int, path: str, attention: AttentionBranch) -> list[Stage]:
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.ls_2, "output"))
    return [Stage(index, Tap(block.ln_1), (attention,)), Stage(index, Tap(block.ln_2), (feed_forward,))]


def _scale(module: Any) -> tuple[Step, ...]:
    return () if isinstance(module, nn.Identity) else (Scale(module.gamma),)


def _norm(module: nn.Module) -> tuple[Step, ...]:
    return () if isinstance(module, nn.Identity) else (Norm(module),)
