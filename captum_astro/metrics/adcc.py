"""ADCC: average drop, coherency and complexity in one number.

Source: Poppi et al., "Revisiting the evaluation of class activation mapping for explainability", CVPR Workshops 2021
(arXiv 2104.10252), section 3.
"""

from __future__ import annotations

import torch

from captum_astro.metrics._maps import correlation, finite_planes, unit_range
from captum_astro.metrics.average_drop import average_drop, masked_by_map, probabilities
from captum_astro.metrics.declaration import RANDOM_MAPS, Given, Metric
from captum_astro.metrics.registry import register


def coherency(maps: torch.Tensor, masked: torch.Tensor) -> torch.Tensor:
    """Whether the map stays the same when it masks the image: Pearson's correlation, rescaled to 0 .. 1.

    Args:
        maps: ``(B, H, W)``, of the images.
        masked: ``(B, H, W)``, of the images masked by these maps.

    Returns:
        ``(B,)`` float64, higher is better; 0.5 where one of the two is constant, since they are not correlated.

    Raises:
        ValueError: If the shapes differ, or a value is NaN or infinite.

    Example:
        >>> maps = torch.tensor([[[0.0, 1.0, 3.0]]])
        >>> coherency(maps, torch.tensor([[[0.0, 1.0, 0.5]]]))
        tensor([0.6637], dtype=torch.float64)
    """
    if maps.shape != masked.shape:
        raise ValueError(f"maps and masked: one shape is needed, not {tuple(maps.shape)} and {tuple(masked.shape)}.")
    found = correlation(*(finite_planes("maps", values).flatten(1) for values in (maps, masked)))
    return (found.nan_to_num(0.0) + 1) / 2


def complexity(maps: torch.Tensor) -> torch.Tensor:
    """The mean of a map that is rescaled to 0 .. 1: how much of the image it takes to explain.

    Args:
        maps: ``(B, H, W)``, of any scale.

    Returns:
        ``(B,)`` float64, from 0 to 1, lower is better.

    Raises:
        ValueError: If a value is NaN or infinite.

    Example:
        >>> complexity(torch.tensor([[[0.0, 1.0], [0.0, 4.0]]]))
        tensor([0.3125], dtype=torch.float64)
    """
    return unit_range(finite_planes("maps", maps).double()).mean((1, 2))


def adcc(drop: torch.Tensor, coherent: torch.Tensor, complex_: torch.Tensor) -> torch.Tensor:
    """The harmonic mean of coherency, 1 - complexity and 1 - average drop; 0 where one of them is 0.

    Args:
        drop: ``(B,)``, of `captum_astro.metrics.average_drop.average_drop`.
        coherent: ``(B,)``, of `coherency`.
        complex_: ``(B,)``, of `complexity`.

    Returns:
        ``(B,)`` float64, from 0 to 1, higher is better.

    Example:
        >>> adcc(torch.tensor([0.5]), torch.tensor([0.5]), torch.tensor([0.5]))
        tensor([0.5000], dtype=torch.float64)
    """
    parts = torch.stack([coherent.double(), 1 - complex_.double(), 1 - drop.double()])
    return 3 / (1 / parts.clamp(min=0)).sum(0)


def _adcc(given: Given) -> torch.Tensor:
    owners = torch.arange(len(given.maps), device=given.pixels.device)
    again = given.explain(masked_by_map(given.pixels, given.maps), owners).to(given.maps)
    drop = average_drop(*given.shared(probabilities))
    return adcc(drop, coherency(given.maps, again), complexity(given.maps))


register(
    Metric(
        "ADCC",
        _adcc,
        needs=("classes", "logits", "pixels", "probability", "explain"),
        kind="perturbation",
        percent=True,
        chance=RANDOM_MAPS,
        constant=torch.nan,
        on_request=True,
        meaning="Harmonic mean of what is kept of the class, the map's likeness to itself, and how little it marks.",
    )
)
