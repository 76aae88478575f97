"""Which axes of a layer's output are places of the image, read off from how it responds to changes of the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from captum_astro.functional.attention import widen
from captum_astro.functional.token_map import Grid

_STILL = 1e-4  # of the places' mean squared response


@dataclass(frozen=True)
class Places:
    """Where the places of the image are in a tensor ``(B, ...)`` of three or four dimensions.

    Attributes:
        channels: The axis with the channels; the others, after the first, are places.
        grid: Rows and columns of the places.
        prefix: The number of tokens before the places; None for a feature map, which has two axes of places.
    """

    channels: int
    grid: Grid
    prefix: int | None

    def tokens(self, x: torch.Tensor) -> torch.Tensor:
        """A tensor of this form as ``(B, rows * columns, channels)``, row by row, without the prefix tokens."""
        return x.movedim(self.channels, -1).flatten(1, -2)[:, self.prefix or 0 :]


def changed_images(image: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """An image, and the three images that `find_places` needs the responses to.

    Args:
        image: ``(C, H, W)``.
        change: What is added to it, of the same shape.

    Returns:
        ``(4, C, H, W)``: the image; with the change; with the change growing from 0 at the top to 1 at the bottom; and
        the same from left to right.
    """
    height, width = image.shape[-2:]
    down, across = ((torch.arange(n).to(image) + 0.5) / n for n in (height, width))
    return torch.stack([image, image + change, image + change * down[:, None], image + change * across])


def find_places(outputs: torch.Tensor) -> Places | None:
    """The places in a layer's output, or None if its responses show no grid in row-major order.

    A place that sees one spot of the image responds to the growing change in proportion to the height of the spot,
    which is thereby measured. For a grid, all of the measured heights must rise row by row, and all of the measured
    distances from the left column by column.

    Args:
        outputs: The layer's output for `changed_images`, ``(4, ...)`` of three or four dimensions.

    Example:
        >>> import torch
        >>> images = changed_images(torch.rand(3, 8, 12), torch.full((3, 8, 12), 0.1))
        >>> patches = torch.nn.functional.avg_pool2d(images, 2)
        >>> find_places(patches)
        Places(channels=1, grid=(4, 6), prefix=None)
        >>> find_places(patches.flatten(2).transpose(1, 2))
        Places(channels=2, grid=(4, 6), prefix=0)
    """
    if outputs.ndim not in (3, 4):
        return None
    for axis in (outputs.ndim - 1, 1):
        found, strength = _measured(outputs, axis)
        if found.ndim == 3:
            if _in_order(found):
                return Places(axis, (found.shape[1], found.shape[2]), None)
            continue
        moved = (strength > _STILL * strength.mean()).nonzero()
        prefix = int(moved[0]) if len(moved) else 0  # nothing of the image reaches them, if each token sees one place
        columns = _columns(found[1, prefix:])
        if columns and _in_order(found[:, prefix:].reshape(2, -1, columns)):
            return Places(axis, ((found.shape[1] - prefix) // columns, columns), prefix)
    return None


def _measured(outputs: torch.Tensor, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Height and distance from the left of every place, ``(2, places...)`` from 0 to 1, and its squared response."""
    wide = widen(outputs.detach()).movedim(channels, -1)
    wide = wide / wide.abs().amax().clamp_min(torch.finfo(wide.dtype).tiny)  # squares must not underflow
    whole, *growing = wide[1:] - wide[:1]
    strength = whole.square().sum(-1)
    return torch.stack([(part * whole).sum(-1) / strength for part in growing]).double().cpu(), strength.cpu()


def _columns(across: torch.Tensor) -> int | None:
    """The number of columns of tokens that may be a grid, by where the last row begins."""
    jumps = (across.diff() < -0.2).nonzero()
    one_row = len(across) > 1 and bool(across[-1] - across[0] > 0.2)
    last_row = int(jumps[-1]) + 1 if len(jumps) else 0 if one_row else len(across) - 1
    columns = len(across) - last_row
    return columns if len(across) > 1 and len(across) % columns == 0 else None


def _in_order(found: torch.Tensor) -> bool:
    """Whether measured coordinates ``(2, rows, columns)`` are those of a grid.

    Strided convolutions may shift all places by up to one place; a crop or a mixture with the rest of the
    image makes their distances smaller.
    """
    for axis, places in enumerate(found.shape[1:]):
        expected = (torch.arange(places, dtype=found.dtype) + 0.5) / places - 0.5
        expected = (expected[:, None] if axis == 0 else expected).expand(found.shape[1:])
        centre = found[axis].mean()
        if not bool((centre - 0.5).abs() * places <= 1):  # False for nan
            return False
        if places == 1:
            continue
        slope = (expected * found[axis]).sum() / expected.square().sum()
        rest = (found[axis] - centre - slope * expected).square().mean().sqrt()
        if not (0.5 <= slope <= 1.5 and rest * places <= 0.3 * slope):
            return False
    return True
