"""One row of VTranM's contribution map: where a final token comes from."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from captum_astro.attr.vtranm import VTranM
from captum_astro.capture.guard import private
from captum_astro.functional.token_map import Grid
from captum_astro.layouts.base import layout_for


class Contributions(NamedTuple):
    """The contribution map of one image.

    Attributes:
        map: ``(final tokens, tokens)``, as `VTranM.contribution_map` returns it.
        final: Rows and columns of the final patches.
        grid: Rows and columns of the patches that enter the model.
        prefix: The number of tokens before the patches.
    """

    map: torch.Tensor
    final: Grid
    grid: Grid
    prefix: int

    def at(self, row: int, column: int) -> tuple[torch.Tensor, Grid]:
        """What every patch contributes to the final token at a patch.

        Args:
            row: The patch's row, counted from the top.
            column: Its column.

        Returns:
            ``(rows, columns)``, and the row and column of the final token, which in a hierarchical model stands for
            several patches.

        Raises:
            ValueError: If there is no such patch.
        """
        rows, columns = self.grid
        if not (0 <= row < rows and 0 <= column < columns):
            raise ValueError(
                f"There is no patch ({row}, {column}): they run from (0, 0) to ({rows - 1}, {columns - 1})."
            )
        place = row * self.final[0] // rows, column * self.final[1] // columns
        before = len(self.map) - self.final[0] * self.final[1]
        found = self.map[before + place[0] * self.final[1] + place[1], self.prefix :]
        return found.reshape(self.grid), place


def contributions(model: nn.Module, x: torch.Tensor, target: int) -> Contributions:
    """The contribution map of an image, of which `Contributions.at` reads a row.

    Args:
        model: A model with a layout, or a `captum_astro.ViTA`.
        x: The model's input, ``(1, C, H, W)``.
        target: The explained class.

    Raises:
        UnsupportedModelError: If VTranM cannot explain the model.

    Example:
        >>> import timm
        >>> model = timm.create_model("scenes_pit_tiny_patch4_64", pretrained=True).eval()
        >>> found = contributions(model, torch.rand(1, 3, 64, 64), target=3)
        >>> row, place = found.at(9, 4)
        >>> found.final, row.shape, place
        ((8, 8), torch.Size([16, 16]), (4, 2))
    """
    found = VTranM(model).contribution_map(x, target=target)[0]
    with private(model) as replica:
        layout = layout_for(replica.model)
        grids = layout.grids(*x.shape[2:])
        return Contributions(found, grids[-1], grids[0], layout.num_prefix_tokens)
