"""Whether a map falls on the object: pointing game and energy inside, with their common chance level.

Maps and masks are ``(B, H, W)`` or ``(B, 1, H, W)``; masks are 1 for the object, 0 for the background and -1 for
unknown pixels, which are ignored: neither a maximum nor energy counts there. Boxes are masks that are 1 inside.
Everything is float64, on the device of the maps, and no image depends on the others in its batch. A map with NaN or
infinite values, and an image without an object, have a score of NaN.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from captum_astro.metrics._maps import maps_and_masks, planes
from captum_astro.metrics.declaration import ChanceFrom, Given, Metric
from captum_astro.metrics.registry import register


def pointing_game(maps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Whether the map's largest value lies on the object; for ties, the fraction of tied pixels that do.

    This is the expected value of choosing one of them at random: the first pixel of a flat top, as patches produce it,
    has no advantage, and a constant map scores the chance level.

    Source: Zhang et al., "Top-down neural attention by excitation backprop", IJCV 126, 2018 (arXiv 1608.00507), without
    the tolerance of 15 pixels.

    Args:
        maps: ``(B, H, W)`` or ``(B, 1, H, W)``, of any scale.
        masks: The same shape, of 1, 0 and -1.

    Returns:
        ``(B,)``, from 0 to 1; chance is `object_share`.

    Raises:
        ValueError: If the shapes differ or are not a batch of maps, or a mask has other values.

    Example:
        >>> pointing_game(torch.tensor([[[0.0, 3.0], [3.0, 1.0]]]), torch.tensor([[[0, 0], [1, 1]]]))
        tensor([0.5000], dtype=torch.float64)
    """
    given = maps_and_masks(maps, masks)
    seen = torch.where(given.labelled, given.maps, -torch.inf)
    top = seen == seen.amax((1, 2), keepdim=True)
    hits, tops = (top & given.object).flatten(1).sum(1).double(), top.flatten(1).sum(1)
    return given.undefined_to_nan(hits / tops, given.object.flatten(1).any(1))


def energy_inside(maps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """The fraction of the map's positive part that lies on the object; 0 if the map has no positive part.

    Source: Wang et al., "Score-CAM", CVPR workshops 2020 (arXiv 1910.01279), section 4.3, for both masks and boxes.

    Args:
        maps: ``(B, H, W)`` or ``(B, 1, H, W)``, of any scale.
        masks: The same shape, of 1, 0 and -1.

    Returns:
        ``(B,)``, from 0 to 1; chance is `object_share`, the score of a constant positive map.

    Raises:
        ValueError: If the shapes differ or are not a batch of maps, or a mask has other values.

    Example:
        >>> energy_inside(torch.tensor([[[1.0, 3.0], [4.0, -2.0]]]), torch.tensor([[[0, 0], [1, 1]]]))
        tensor([0.5000], dtype=torch.float64)
    """
    given = maps_and_masks(maps, masks)
    positive = torch.where(given.labelled, given.maps.clamp(min=0), 0.0)
    positive = positive / positive.amax((1, 2), keepdim=True).clamp(min=torch.finfo(positive.dtype).tiny)
    energy = positive.sum((1, 2))
    share = torch.where(given.object, positive, 0.0).sum((1, 2)) / torch.where(energy > 0, energy, 1.0)
    return given.undefined_to_nan(share, given.object.flatten(1).any(1))


def object_share(masks: torch.Tensor) -> torch.Tensor:
    """The object's fraction of the known pixels: the chance level of `pointing_game` and `energy_inside`.

    Args:
        masks: ``(B, H, W)`` or ``(B, 1, H, W)``, of 1, 0 and -1.

    Returns:
        ``(B,)``, from 0 to 1; 0 without an object, NaN if no pixel is known.

    Raises:
        ValueError: If the shape is not a batch of masks, or a mask has other values.

    Example:
        >>> object_share(torch.tensor([[[-1, 0], [0, 1]]]))
        tensor([0.3333], dtype=torch.float64)
    """
    given = maps_and_masks(torch.zeros_like(planes("masks", masks), dtype=torch.float64), masks)
    return given.object.flatten(1).sum(1).double() / given.labelled.flatten(1).sum(1)


def _on_masks(function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[[Given], torch.Tensor]:
    return lambda given: function(given.maps, given.masks)


for _name, _function, _meaning in (
    ("pointing game", pointing_game, "Share of the images where the largest value of the map is on the object."),
    ("energy inside", energy_inside, "Share of the map's positive values that is on the object."),
):
    register(
        Metric(
            _name,
            _on_masks(_function),
            needs=("masks",),
            kind="localisation",
            percent=True,
            chance=ChanceFrom("object share"),
            meaning=_meaning,
        )
    )
register(
    Metric(
        "object share",
        lambda given: object_share(given.masks),
        needs=("masks",),
        kind="localisation",
        percent=True,
        of_model=True,
        meaning="Share of the image's pixels that are of the object.",
    )
)
