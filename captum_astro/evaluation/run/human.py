"""Maps against maps of where people looked, as the benchmark and the search for astrocytes score them."""

from __future__ import annotations

from collections.abc import Callable

import torch

from captum_astro.data.human import prepare_heatmap
from captum_astro.metrics import alignment

HUMAN: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "Spearman": alignment.spearman,
    "Dice": alignment.dice,
    "IoU": alignment.iou,
    "SSIM": alignment.ssim,
}


def prepared(human: torch.Tensor, size: int, name: str) -> torch.Tensor:
    """A map of where people looked, ``(h, w)``, as it is compared, ``(size, size)``.

    Raises:
        ValueError: If it is not finite; it has the sample's name.
    """
    if not human.isfinite().all():
        raise ValueError(f"The human map of {name} holds NaN or infinite values.")
    return prepare_heatmap(human, size)


def agreement(metric: str, maps: torch.Tensor, human: torch.Tensor) -> torch.Tensor:
    """How far maps agree with people.

    A map that is the same everywhere orders nothing: where a metric has no value for it, it scores 0, as a random one
    does, or what makes maps die would be left out and win. SSIM has one, and a high one where people's map is mostly
    empty. NaN is left where people's map is the same everywhere.

    Args:
        metric: A name in `HUMAN`.
        maps: ``(B, H, W)``.
        human: ``(B, H, W)``, as `prepared`.

    Returns:
        ``(B,)`` float64.
    """
    value = HUMAN[metric](maps, human)
    return torch.where(value.isnan() & _constant(maps) & ~_constant(human), 0.0, value)


def _constant(maps: torch.Tensor) -> torch.Tensor:
    return maps.amax((1, 2)) == maps.amin((1, 2))
