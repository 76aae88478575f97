"""Sensitivity-n and infidelity: does the sum of a map over random cells say what the model loses without them?

The image is a grid of square cells, about one for each patch of a Vision Transformer. Random sets of them are set to
black in [0, 1] space, and the sum of the map over each set is compared with the drop of the class's probability. Single
pixels would leave the output as it is; single numbers of single channels, as other implementations remove them, even
more so. Both metrics read the same forward passes. Every image and method has the same sets.

Sources: Ancona et al., "Towards better understanding of gradient-based attribution methods", ICLR 2018 (arXiv
1711.06104), section 4, for sensitivity-n; Yeh et al., "On the (in)fidelity and sensitivity of explanations", NeurIPS
2019 (arXiv 1901.09392), Definition 2.1, with the best scale of each map, as Captum's ``normalize=True``.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from captum_astro.metrics._maps import correlation, finite_planes
from captum_astro.metrics.declaration import RANDOM_MAPS, Given, Metric, Need
from captum_astro.metrics.perturbation import class_probability
from captum_astro.metrics.registry import register

CELLS = 14  # along the longer side of the image
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # of the cells
SETS = 10  # of each share


class Removals(NamedTuple):
    """The sums of the maps over sets of pixels, and the drop of the output without them: ``(B, shares, sets)`` each."""

    sums: torch.Tensor
    drops: torch.Tensor


def random_sets(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Random sets of cells as pixels, ``(shares, sets, H, W)`` bool; the same for the same size and seed.

    Args:
        height: Of the image, in pixels.
        width: The same.
        seed: Random seed.

    Example:
        >>> [round(share, 2) for share in random_sets(28, 28).double().mean((1, 2, 3)).tolist()]
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    """
    side = max(1, max(height, width) / CELLS)
    rows, columns = max(1, round(height / side)), max(1, round(width / side))
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(len(SHARES), SETS, rows * columns, generator=generator).argsort(-1).argsort(-1)
    counts = torch.tensor([round(share * rows * columns) for share in SHARES])
    cells = (order < counts[:, None, None]).reshape(-1, 1, rows, columns)
    return F.interpolate(cells.double(), (height, width), mode="nearest").bool().reshape(-1, SETS, height, width)


def sensitivity_n(removals: Removals) -> torch.Tensor:
    """The correlation of sums and drops over sets of one share, averaged over the shares.

    Args:
        removals: The sums and the drops, of two sets of a share at least.

    Returns:
        ``(B,)`` float64, from -1 to 1, higher is better; shares at which all sums or all drops are equal do not count;
        NaN if none counts.

    Example:
        >>> sums = torch.tensor([[[1.0, 2.0, 4.0]]])
        >>> sensitivity_n(Removals(sums, torch.tensor([[[0.1, 0.3, 0.2]]])))
        tensor([0.3273], dtype=torch.float64)
    """
    return correlation(*removals).nanmean(-1)


def infidelity(removals: Removals) -> torch.Tensor:
    """The mean squared difference between drops and sums, with the map scaled to make it smallest.

    Args:
        removals: The sums and the drops.

    Returns:
        ``(B,)`` float64, from 0, lower is better; NaN where all sums are 0.

    Example:
        >>> sums = torch.tensor([[[1.0, 2.0, 4.0]]])
        >>> infidelity(Removals(sums, 3 * sums))
        tensor([0.], dtype=torch.float64)
    """
    sums, drops = (values.double().flatten(1) for values in removals)
    scale = (sums * drops).sum(1) / (sums * sums).sum(1)
    return (scale[:, None] * sums - drops).square().mean(1)


def removals(given: Given) -> Removals:
    """Sums and drops for maps of the benchmark."""
    maps = finite_planes("maps", given.maps).double()
    sets = random_sets(*maps.shape[1:])
    sums = torch.einsum("bhw,ckhw->bck", maps, sets.double())
    whole = class_probability(given.logits[:, None], given.classes)[:, :1]
    left = torch.empty_like(sums)
    keep = (~sets).flatten(0, 1)[:, None].to(given.pixels)
    for i, image in enumerate(given.pixels):  # one image at a time: a batch of all sets of all images would be large
        owners = torch.full((len(keep),), i, device=image.device)
        left[i] = given.probability(image * keep, owners).to(left).reshape(left.shape[1:])
    return Removals(sums, whole[..., None].to(left) - left)


_NEEDS: tuple[Need, ...] = ("classes", "logits", "pixels", "probability")
register(
    Metric(
        "sensitivity-n",
        lambda given: sensitivity_n(given.shared(removals)),
        needs=_NEEDS,
        kind="perturbation",
        chance=0.0,
        constant=torch.nan,
        on_request=True,
        meaning="Correlation of the map's sums over random cells with what the class loses without them.",
    )
)
register(
    Metric(
        "infidelity",
        lambda given: infidelity(given.shared(removals)),
        needs=_NEEDS,
        direction=-1,
        kind="perturbation",
        chance=RANDOM_MAPS,
        constant=torch.nan,
        on_request=True,
        meaning="Squared difference between the map's scaled sums over random cells and what the class loses there.",
    )
)
