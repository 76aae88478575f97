"""timm's Hiera: attention in mask units or over all tokens; queries and tokens are max-pooled between stages."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from timm.models.hiera import Hiera
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, convolution_map
from captum_astro.layouts.averaged import AveragedLayout, check_average
from captum_astro.layouts.base import register_layout
from captum_astro.layouts.convolution import MAXIMUM
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Linear, Scale, Step, Tap
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch, Merging, Stage


@register_layout(Hiera)
class HieraLayout(AveragedLayout):
    """The tokens are those of the first stage's grid.

    The model keeps its tokens in an order in which those that are pooled are neighbours; here they are row by row.

    Raises:
        UnsupportedModelError: If the model does not use average pooling, or is made for videos.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        check_average(model, self._model.head.pool_type)
        if len(self._model.tokens_spatial_shape) != 2:
            raise UnsupportedModelError(
                "Hiera is made for videos here. The image models have a layout (hiera_tiny_224)."
            )
        self.stages = []
        for index, block in enumerate(self._model.blocks):
            self.stages += _block(self._model, block, index)
        self.final_stream = self._tokens(block, index)

    def grid(self, height: int, width: int) -> Grid:
        rows, columns = self._model.tokens_spatial_shape
        return int(rows), int(columns)

    def _tokens(self, block: nn.Module, index: int) -> Tap:
        return Tap(block, "output", arrange=partial(_row_by_row, model=self._model, block=index))


def _block(model: Any, block: Any, index: int) -> list[Stage]:
    path, attn = f"blocks.{index}", block.attn
    before = partial(_row_by_row, model=model, block=max(index - 1, 0))
    after = partial(_row_by_row, model=model, block=index)
    units = _units(model, block, index)
    steps: tuple[Step, ...] = (Linear(attn.proj.weight, attn.proj.bias),)
    if not isinstance(block.ls1, nn.Identity):
        steps = (*steps, Scale(block.ls1.gamma))
    attention = AttentionBranch(
        f"{path}.attn",
        attn,
        steps,
        lambda: attn.qkv.weight[2 * attn.heads * attn.head_dim :].reshape(attn.heads, attn.head_dim, -1),
        reads=Tap(attn, arrange=before) if attn.use_mask_unit_attn else None,
        entering=Tap(block.norm1, "output", arrange=before),
        outputs=partial(_members, model=model, block=index, units=units),
        sources=partial(_members, model=model, block=max(index - 1, 0), units=units),
        windows=2 if attn.use_mask_unit_attn else None,
    )
    feed_forward = FeedForwardBranch(f"{path}.mlp", Tap(block.drop_path2, "output", arrange=after))
    return [
        Stage(index, Tap(block.norm1, arrange=before), (attention,), merging=_pooling(model, block, path, before)),
        Stage(index, Tap(block.norm2, arrange=after), (feed_forward,)),
    ]


def _pooling(model: Any, block: Any, path: str, before: Any) -> Merging | None:
    """The shortcut where a stage begins: the maximum of projected tokens, or their maximum and their average."""
    if not block.do_expand:
        return None
    pooled, projected = block.attn.q_stride > 1, block.proj is not None
    cells = partial(_cells, size=tuple(model.q_stride) if pooled else (1, 1))
    return Merging(
        f"{path}.proj" if projected else path,
        cells,
        entering=Tap(block.proj, "output", arrange=before) if projected else None,
        maximum=True,
        averaged=not projected,
        approximate=MAXIMUM if pooled else None,
    )


def _cells(grid: Grid, size: Grid) -> TokenMap:
    return convolution_map(grid, size, size)


def _units(model: Any, block: Any, index: int) -> int:
    """The number of groups whose tokens see each other."""
    if not block.attn.use_mask_unit_attn:
        return 1
    tokens = len(_order(model, max(index - 1, 0)))
    return int(tokens // (block.attn.q_stride * block.attn.window_size))


def _members(grid: Grid, model: Any, block: int, units: int) -> TokenMap:
    """The tokens of each unit, which the model keeps in the last dimension."""
    order = _order(model, block)
    return TokenMap(order.reshape(-1, units).T.unsqueeze(-1).contiguous(), len(order), padded=False)


def _order(model: Any, block: int) -> torch.Tensor:
    """The place in the image, row by row, of each token at the output of a block."""
    rows, columns = model.reroll.schedule[block][1]
    own = torch.arange(rows * columns)
    return _row_by_row(own[None, :, None], model, block)[0, :, 0].argsort()


def _row_by_row(x: torch.Tensor, model: Any, block: int) -> torch.Tensor:
    tokens: torch.Tensor = model.reroll(x.contiguous(), block).flatten(1, 2)
    return tokens
