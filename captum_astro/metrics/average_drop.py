"""Average drop and average increase: what of the class is left when the map itself masks the image.

The image is multiplied by its map, rescaled to 0 .. 1, in [0, 1] space, before normalisation: what the map leaves out
becomes black. Both scores come from one forward pass.

Source: Chattopadhay et al., "Grad-CAM++", WACV 2018 (arXiv 1710.11063), section 5.1.
"""

from __future__ import annotations

import torch

from captum_astro.metrics._maps import finite_planes, unit_range
from captum_astro.metrics.declaration import RANDOM_MAPS, Given, Metric, Need
from captum_astro.metrics.perturbation import class_probability
from captum_astro.metrics.registry import register


def masked_by_map(pixels: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Images multiplied by their maps, which are rescaled to 0 .. 1 each.

    Args:
        pixels: ``(B, C, H, W)`` in [0, 1], before normalisation.
        maps: ``(B, H, W)`` or ``(B, 1, H, W)``, of any scale.

    Returns:
        ``(B, C, H, W)``, with the dtype and device of the images.

    Raises:
        ValueError: If the shapes do not match, or a value of a map is NaN or infinite.

    Example:
        >>> masked_by_map(torch.ones(1, 1, 1, 3), torch.tensor([[[1.0, 2.0, 3.0]]])).flatten()
        tensor([0.0000, 0.5000, 1.0000])
    """
    values = finite_planes("maps", maps)
    if pixels.ndim != 4 or (len(pixels), *pixels.shape[2:]) != values.shape:
        raise ValueError(f"pixels {tuple(pixels.shape)} and maps {tuple(maps.shape)} differ; resize the maps.")
    return pixels * unit_range(values.double())[:, None].to(pixels)


def average_drop(whole: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """The share of the class's probability that is lost; 0 where it rises.

    Args:
        whole: ``(B,)``, the class's probability for the image.
        masked: ``(B,)``, for the image masked by its map.

    Returns:
        ``(B,)`` float64, from 0 to 1, lower is better; its mean over images is the published value, in per cent.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> average_drop(torch.tensor([0.8, 0.5]), torch.tensor([0.6, 0.9]))
        tensor([0.2500, 0.0000], dtype=torch.float64)
    """
    whole, masked = _both(whole, masked)
    return (whole - masked).clamp(min=0) / whole


def average_increase(whole: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """Whether the class's probability rises.

    Args:
        whole: ``(B,)``, the class's probability for the image.
        masked: ``(B,)``, for the image masked by its map.

    Returns:
        ``(B,)`` float64, 1 or 0, higher is better; its mean over images is the published value, in per cent.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> average_increase(torch.tensor([0.8, 0.5]), torch.tensor([0.6, 0.9]))
        tensor([0., 1.], dtype=torch.float64)
    """
    whole, masked = _both(whole, masked)
    return (masked > whole).double()


def _both(whole: torch.Tensor, masked: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if whole.ndim != 1 or whole.shape != masked.shape:
        raise ValueError(f"whole and masked: (B,) each is needed, not {tuple(whole.shape)} and {tuple(masked.shape)}.")
    return whole.double(), masked.double().to(whole.device)


def probabilities(given: Given) -> tuple[torch.Tensor, torch.Tensor]:
    """The class's probability for each image, and for the image masked by its map: ``(M,)`` each, on the CPU."""
    whole = class_probability(given.logits[:, None], given.classes)[:, 0]
    owners = torch.arange(len(given.maps), device=given.pixels.device)
    masked = given.probability(masked_by_map(given.pixels, given.maps), owners)
    return whole, masked.to(whole.device)


_NEEDS: tuple[Need, ...] = ("classes", "logits", "pixels", "probability")
register(
    Metric(
        "average drop",
        lambda given: average_drop(*given.shared(probabilities)),
        needs=_NEEDS,
        direction=-1,
        kind="perturbation",
        percent=True,
        chance=RANDOM_MAPS,
        constant=torch.nan,
        meaning="Share of the explained class's probability that is lost when the image is multiplied by its map.",
    )
)
register(
    Metric(
        "average increase",
        lambda given: average_increase(*given.shared(probabilities)),
        needs=_NEEDS,
        kind="perturbation",
        percent=True,
        chance=RANDOM_MAPS,
        constant=torch.nan,
        meaning="Share of the images whose class becomes more probable when the image is multiplied by its map.",
    )
)
