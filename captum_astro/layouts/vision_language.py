"""The image encoders of language models: alone, or in a classifier; and the projector that merges their patches."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from captum_astro.functional.token_map import Grid, TokenMap, merge_map
from captum_astro.layouts.averaged import AveragedLayout
from captum_astro.layouts.blocks import describe_blocks
from captum_astro.layouts.steps import Linear, Tap
from captum_astro.layouts.structure import Merging, Stage


class EncoderLayout(AveragedLayout):
    """An encoder of patches without prefix tokens, and a classifier that wraps one as its ``encoder``.

    A projector merges neighbouring patches: it is one more stage, and its tokens are those that are averaged. If
    nothing averages them, the output has a row for each, and the target is ``(token, feature)``, or ``(row, column,
    feature)`` where the output is a grid.

    Args:
        model: The encoder or the classifier.
        projector: The projector of the encoder, if it has one.
    """

    def __init__(self, model: nn.Module, projector: nn.Module | None) -> None:
        super().__init__(model)
        given: Any = cast(Any, model)
        inside = hasattr(model, "encoder")
        self._encoder: Any = given.encoder if inside else given
        path = "encoder." if inside else ""
        self.stages = describe_blocks(self._encoder.blocks, f"{path}blocks")
        self.final_stream = last = Tap(self._encoder.blocks[-1], "output")
        if projector is not None:
            merging, self.final_stream = self._projected(projector, path)
            self.stages.append(Stage(len(self._encoder.blocks) - 1, last, merging=merging))
        self.per_position = given.global_pool != "avg"
        if inside and not self.per_position:
            self.pooled = (Tap(self._encoder, "output"), Tap(given.norm))

    def _projected(self, projector: Any, path: str) -> tuple[Merging, Tap]:
        """How a projector merges patches, and where the merged ones can be read: each is changed by itself after that.

        Args:
            projector: The projector.
            path: The dotted path of the encoder, with a dot.
        """
        raise NotImplementedError

    def grid(self, height: int, width: int) -> Grid:
        rows, columns = self._encoder.patch_embed.dynamic_feat_size((height, width))
        return int(rows), int(columns)


def merged_by(first: nn.Linear, weight: torch.Tensor, name: str, size: int, entering: Tap) -> tuple[Merging, Tap]:
    """Cells of patches that are concatenated and projected by a linear layer.

    Args:
        first: The linear layer.
        weight: Its weight, ``(out, patches of a cell, row by row, * d)``.
        name: The dotted path of the projector.
        size: Rows and columns of a cell.
        entering: Where the patches can be read as they are concatenated.
    """

    def cells(grid: Grid) -> TokenMap:
        return merge_map(grid, (size, size), columns_first=False)

    return Merging(name, cells, (Linear(weight, first.bias),), entering), Tap(first, "output")
