"""Agreement with human attention maps: rank correlation, overlap of the top pixels, structural similarity.

Each function scores every image separately, in float64: it takes two ``(B, H, W)`` tensors and returns ``(B,)``.

Sources: Fel et al., "Harmonizing the object recognition strategies of deep neural networks with humans", NeurIPS 2022
(arXiv 2211.04533) and its published code for Spearman, Dice and IoU on ClickMe maps (Linsley et al., ICLR 2019, arXiv
1805.08819); Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 13(4),
2004, for SSIM.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from captum_astro.metrics._maps import finite_planes, unit_range
from captum_astro.metrics.declaration import Given, Metric
from captum_astro.metrics.registry import register

HUMAN_CEILING = 0.65753  # Spearman between the ClickMe maps of different people for one image, from the published code
_C1, _C2 = 0.01**2, 0.03**2  # constants of SSIM, for values from 0 to 1


def spearman(maps: torch.Tensor, human: torch.Tensor) -> torch.Tensor:
    """Rank correlation over the pixels; equal pixels share their mean rank, as in ``scipy.stats.spearmanr``.

    Args:
        maps: ``(B, H, W)`` or ``(B, 1, H, W)``, of any scale.
        human: The same shape, of any scale.

    Returns:
        ``(B,)``, from -1 to 1. NaN if one of the two maps is constant, where no correlation is defined.

    Raises:
        ValueError: If the shapes differ or are not a batch of maps, or a value is NaN or infinite.

    Example:
        >>> maps = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
        >>> spearman(maps, maps.flip(1))
        tensor([-0.6000], dtype=torch.float64)
    """
    maps, human = _pair(maps, human)
    a, b = _centred_ranks(maps.flatten(1)), _centred_ranks(human.flatten(1))
    return (a * b).sum(1) / ((a * a).sum(1) * (b * b).sum(1)).sqrt()


def dice(maps: torch.Tensor, human: torch.Tensor, percentile: float = 90.0) -> torch.Tensor:
    """Overlap ``2 |A and B| / (|A| + |B|)`` of the pixels strictly above each map's own percentile.

    Pixels equal to the percentile are excluded, so a map with a flat top may have few pixels or none.

    Args:
        maps: ``(B, H, W)`` or ``(B, 1, H, W)``, of any scale.
        human: The same shape, of any scale.
        percentile: From 0, below 100; linear interpolation, as in ``numpy.percentile``.

    Returns:
        ``(B,)``, from 0 to 1; 0 where both sets are empty, as with the published ``+ 1e-9`` in the denominator.

    Raises:
        ValueError: If the shapes differ or are not a batch of maps, a value is NaN or infinite, or the percentile is
            out of range.

    Example:
        >>> maps, human = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[[1.0, 4.0], [2.0, 3.0]]])
        >>> dice(maps, human, percentile=50)
        tensor([0.5000], dtype=torch.float64)
    """
    a, b = _top_pixels(maps, human, percentile)
    return 2 * (a & b).sum(1).double() / (a.sum(1) + b.sum(1)).clamp(min=1)


def iou(maps: torch.Tensor, human: torch.Tensor, percentile: float = 90.0) -> torch.Tensor:
    """Intersection over union, ``|A and B| / |A or B|``, of the same sets of pixels as `dice`.

    Args:
        maps: ``(B, H, W)`` or ``(B, 1, H, W)``, of any scale.
        human: The same shape, of any scale.
        percentile: From 0, below 100; linear interpolation, as in ``numpy.percentile``.

    Returns:
        ``(B,)``, from 0 to 1; 0 where both sets are empty.

    Raises:
        ValueError: As for `dice`.

    Example:
        >>> maps, human = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[[1.0, 4.0], [2.0, 3.0]]])
        >>> iou(maps, human, percentile=50)
        tensor([0.3333], dtype=torch.float64)
    """
    a, b = _top_pixels(maps, human, percentile)
    return (a & b).sum(1).double() / (a | b).sum(1).clamp(min=1)


def ssim(maps: torch.Tensor, human: torch.Tensor, window: int = 7) -> torch.Tensor:
    """Structural similarity (Eq. 13 of its paper), averaged over the windows that lie inside the image.

    Each map is first rescaled to 0 .. 1 by its own minimum and maximum; a constant map becomes zeros. Everything else
    follows the defaults of ``skimage.metrics.structural_similarity``: uniform windows, sample covariance, constants .01
    and .03.

    Args:
        maps: ``(B, H, W)`` or ``(B, 1, H, W)``, of any scale.
        human: The same shape, of any scale.
        window: Side of the windows in pixels, odd, at least 3.

    Returns:
        ``(B,)``, at most 1, which equal maps reach.

    Raises:
        ValueError: If the shapes differ or are not a batch of maps, a value is NaN or infinite, or the window is not
            odd or does not fit into the maps.

    Example:
        >>> maps = torch.arange(64.0).reshape(1, 8, 8)
        >>> ssim(maps, 3 * maps + 1)
        tensor([1.], dtype=torch.float64)
    """
    if isinstance(window, bool) or not isinstance(window, int) or window < 3 or window % 2 == 0:
        raise ValueError(f"window: an odd number of pixels, at least 3, is needed, not {window!r}.")
    maps, human = _pair(maps, human)
    if window > min(maps.shape[1:]):
        raise ValueError(
            f"window: {window} pixels do not fit into maps of {maps.shape[1]} x {maps.shape[2]}; "
            "enlarge the maps or pass a smaller odd window."
        )
    x, y = unit_range(maps), unit_range(human)
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = (_window_means(plane, window) for plane in (x, y, x * x, y * y, x * y))
    unbiased = window**2 / (window**2 - 1)
    variances = unbiased * (mean_xx - mean_x**2 + mean_yy - mean_y**2)
    covariance = unbiased * (mean_xy - mean_x * mean_y)
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    structure = (2 * covariance + _C2) / (variances + _C2)
    return (luminance * structure).mean((1, 2))


def alignment_score(scores: torch.Tensor, ceiling: float = HUMAN_CEILING) -> torch.Tensor:
    """Scores as fractions of the agreement between humans.

    Args:
        scores: Of any shape. The default ceiling is for `spearman` on ClickMe maps.
        ceiling: The agreement between humans, above 0.

    Returns:
        ``scores / ceiling``, the same shape; 1 equals the agreement between humans, and larger values are possible.

    Raises:
        ValueError: If the ceiling is not a number above 0.

    Example:
        >>> alignment_score(torch.tensor([0.65753, 0.0]))
        tensor([1., 0.])
    """
    if not 0 < ceiling < float("inf"):
        raise ValueError(f"ceiling: the score of people, a number above 0, is needed, not {ceiling!r}.")
    return scores / ceiling


def _pair(maps: torch.Tensor, human: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both as ``(B, H, W)`` in float64 on the device of the maps."""
    maps, human = (finite_planes(name, x).double() for name, x in (("maps", maps), ("human", human)))
    if maps.shape != human.shape:
        raise ValueError(
            f"maps {tuple(maps.shape)} and human {tuple(human.shape)} differ in shape; bring one to the size of the "
            "other (torch.nn.functional.interpolate)."
        )
    return maps, human.to(maps.device)


def _window_means(x: torch.Tensor, window: int) -> torch.Tensor:
    """The mean of every window inside ``(B, H, W)``, from sums of columns; several times faster than pooling."""
    for axis in (1, 2):
        inside = x.shape[axis] - window + 1
        total = x.narrow(axis, 0, inside).clone()
        for shift in range(1, window):
            total += x.narrow(axis, shift, inside)
        x = total
    return x / window**2


def _centred_ranks(values: torch.Tensor) -> torch.Tensor:
    """Ranks minus their mean, ``(B, N)``: multiples of one half, so that their sums are exact in any order."""
    count = values.shape[1]
    ordered, order = values.sort(-1)
    place = torch.arange(count, device=values.device).expand_as(order)
    begins = torch.ones_like(order, dtype=torch.bool)
    begins[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    ends = begins.roll(-1, -1)
    first = place.where(begins, 0).cummax(-1).values  # of the equal values around each place
    last = place.where(ends, count).flip(-1).cummin(-1).values.flip(-1)
    middle = (first + last + 1 - count).double() / 2
    return torch.empty_like(middle).scatter_(-1, order, middle)


def _top_pixels(maps: torch.Tensor, human: torch.Tensor, percentile: float) -> tuple[torch.Tensor, torch.Tensor]:
    if not 0 <= percentile < 100:
        raise ValueError(f"percentile must be from 0 to below 100, not {percentile!r}; 90 keeps the top tenth.")
    maps, human = _pair(maps, human)
    return _above(maps.flatten(1), percentile), _above(human.flatten(1), percentile)


def _above(values: torch.Tensor, percentile: float) -> torch.Tensor:
    position = percentile / 100 * (values.shape[1] - 1)
    low = int(position)
    weight = position - low
    lower, upper = (values.kthvalue(min(at, values.shape[1]), -1, keepdim=True).values for at in (low + 1, low + 2))
    step = upper - lower
    return values > (lower + step * weight if weight < 0.5 else upper - step * (1 - weight))


def _scored(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[[Given], torch.Tensor]:
    return lambda given: function(given.maps, given.human_maps)


_TENTH = 0.1  # fraction of the pixels above the 90th percentile
for _name, _function, _chance, _meaning in (
    ("Spearman", spearman, 0.0, "Rank correlation of the map with where people looked, from -1 to 1."),
    ("Dice", dice, _TENTH, "Overlap of the top tenth of the map and of where people looked, over their mean size."),
    (
        "IoU",
        iou,
        _TENTH / (2 - _TENTH),
        "Overlap of the top tenth of the map and of where people looked, over their union.",
    ),
    ("SSIM", ssim, None, "Structural similarity of the map and of where people looked, at most 1."),
):
    register(
        Metric(
            _name,
            _scored(_function),
            needs=("human_maps",),
            kind="human",
            heading="Agreement with human attention",
            chance=_chance,
            meaning=_meaning,
            constant=0.0,  # it ranks nothing; if it were left out, a setting that makes maps vanish could win
        )
    )
