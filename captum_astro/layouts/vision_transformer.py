"""timm's VisionTransformer, plain and distilled, with any of its stems and pooling types."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from timm.layers import AttentionPoolLatent, AttentionPoolPrr
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from captum_astro.functional.token_map import tail_map
from captum_astro.layouts.base import Layout, register_layout
from captum_astro.layouts.blocks import describe_blocks, norm_step
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Linear, Tap
from captum_astro.layouts.structure import AttentionBranch, Pooling


@register_layout(VisionTransformer)
class VisionTransformerLayout(Layout):
    """Models with ``blocks``, ``patch_embed``, ``num_prefix_tokens`` and ``global_pool``, as timm names them.

    Covers the class token, registers, average pooling (with or without the prefix tokens) and attention pooling; images
    of any size that the model accepts.

    Raises:
        UnsupportedModelError: If the class of a block is unknown, or the model uses max pooling or no pooling.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        self.stages = describe_blocks(self._model.blocks)
        self.final_stream = Tap(list(self._model.blocks)[-1], "output")
        self.num_prefix_tokens = self._model.num_prefix_tokens
        self.pooling = self._describe_pooling()
        if self.pooling is None and hasattr(model, "fc_norm"):
            self.pooled = (Tap(self._model.norm, "output"), Tap(self._model.fc_norm))

    def grid(self, height: int, width: int) -> tuple[int, int]:
        rows, columns = self._patch_embed.dynamic_feat_size((height, width))
        return int(rows), int(columns)

    def extent(self, height: int, width: int) -> tuple[int, int]:
        embed = self._patch_embed
        if not getattr(embed, "dynamic_img_pad", False):
            return height, width
        (rows, columns), (patch_height, patch_width) = self.grid(height, width), embed.feat_ratio(as_scalar=False)
        return rows * int(patch_height), columns * int(patch_width)

    def readout(self, tokens: int) -> torch.Tensor:
        weights = torch.zeros(tokens, dtype=torch.float64)
        if self._model.global_pool == "token":
            weights[0] = 1
        else:
            weights[0 if self._pools_prefix else self.num_prefix_tokens :] = 1
        return weights / weights.sum()

    @property
    def _patch_embed(self) -> Any:
        return self._model.patch_embed

    @property
    def _pools_prefix(self) -> bool:
        return bool(getattr(self._model, "pool_include_prefix", False))

    def _describe_pooling(self) -> Pooling | None:
        pool = getattr(self._model, "attn_pool", None)
        if pool is not None:
            return attention_pooling(pool, "attn_pool", self.num_prefix_tokens, self._pools_prefix)
        if self._model.global_pool not in ("token", "avg"):
            raise UnsupportedModelError(
                f"{type(self.model).__name__} pools by {self._model.global_pool!r}, which no weights over the tokens "
                f"describe. Create it with global_pool='avg' or 'token'."
            )
        return None


@register_layout(VisionTransformerDistilled)
class DistilledLayout(VisionTransformerLayout):
    """DeiT with a distillation token: the logits are the mean of two heads, so the read-out has two rows."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self.pooled = None  # there is no pooled vector: each head reads its own token

    def readout(self, tokens: int) -> torch.Tensor:
        weights = torch.zeros(tokens, dtype=torch.float64)
        weights[:2] = 0.5
        return weights


def attention_pooling(pool: nn.Module, name: str, prefix: int, pools_prefix: bool) -> Pooling:
    """Describe one of timm's attention pooling heads.

    Args:
        pool: An ``AttentionPoolLatent`` or ``AttentionPoolPrr``.
        name: Its dotted path.
        prefix: The number of prefix tokens before the patch tokens.
        pools_prefix: Whether it pools them as well.

    Raises:
        UnsupportedModelError: If its class is unknown.
    """
    module: Any = pool
    heads = module.num_heads

    def rows(queries: int) -> torch.Tensor:
        weights = torch.zeros(queries, dtype=torch.float64)
        weights[: 1 if module.pool == "token" else queries] = 1
        return weights / weights.sum()

    if isinstance(pool, AttentionPoolPrr):
        width = module.out_features
        weight = module.num_heads, width // heads, width
        reads = None if isinstance(module.pre_norm, nn.Identity) else Tap(module.pre_norm, "output")
        branch = AttentionBranch(name, pool, norm_step(module.post_norm), lambda: torch.eye(width).reshape(weight))
        branch, pooled = replace(branch, reads=reads), Tap(module.post_norm, "output")
    elif isinstance(pool, AttentionPoolLatent):
        project = (Linear(module.proj.weight, module.proj.bias),) if isinstance(module.proj, nn.Linear) else ()

        def value_weight() -> torch.Tensor:
            weight: torch.Tensor = module.kv.weight
            return weight[weight.shape[0] // 2 :].reshape(heads, -1, weight.shape[-1])

        reads = None if module.pos_embed is None else Tap(module.kv)  # after position embeddings of its own
        branch, pooled = AttentionBranch(name, pool, project, value_weight, reads=reads), Tap(module.proj, "output")
    else:
        raise UnsupportedModelError(
            f"{name} is a {type(pool).__name__}. Known pooling heads: AttentionPoolLatent, AttentionPoolPrr."
        )
    if prefix and not pools_prefix:
        branch = replace(branch, sources=lambda grid: tail_map(grid[0] * grid[1] + prefix, prefix))
    return Pooling(branch, rows, pooled)
