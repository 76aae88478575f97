"""Max-sensitivity: how far a map moves when the image is changed by what nobody would see.

Source: Yeh et al., "On the (in)fidelity and sensitivity of explanations", NeurIPS 2019 (arXiv 1901.09392), Definition
3.1, relative to the map's own norm and estimated by samples, as in ``captum.metrics.sensitivity_max``.
"""

from __future__ import annotations

import torch

from captum_astro.metrics._maps import finite_planes
from captum_astro.metrics.declaration import Explain, Given, Metric
from captum_astro.metrics.registry import register


def max_sensitivity(
    maps: torch.Tensor, pixels: torch.Tensor, explain: Explain, *, radius: float = 0.02, samples: int = 10
) -> torch.Tensor:
    """The largest relative change of a map over noisy copies of its image.

    Noise is uniform in ``[-radius, radius]`` for every value, and the same for every image. All copies of one sample
    number are explained in one call.

    Args:
        maps: ``(B, H, W)`` or ``(B, 1, H, W)``, the maps of the images.
        pixels: ``(B, C, H, W)`` in [0, 1], before normalisation.
        explain: Takes N images and the indices ``(N,)`` among the B of the image that each was made from, and returns
            the maps ``(N, H, W)``.
        radius: In units of [0, 1].
        samples: The number of noisy copies.

    Returns:
        ``(B,)`` float64, from 0, lower is better; NaN for a map of zeros.

    Raises:
        ValueError: If the shapes do not match, a value is NaN or infinite, or there is no sample.

    Example:
        >>> pixels = torch.full((1, 1, 2, 2), 0.5)
        >>> max_sensitivity(pixels[:, 0], pixels, lambda images, owners: pixels[:, 0] + 1)
        tensor([2.], dtype=torch.float64)
    """
    values = finite_planes("maps", maps).double()
    if samples < 1 or not radius > 0:
        raise ValueError(f"samples from 1 and a radius above 0 are needed, not {samples!r} and {radius!r}.")
    if pixels.ndim != 4 or len(pixels) != len(values):
        raise ValueError(f"pixels: (B, C, H, W) for {len(values)} maps is needed, not {tuple(pixels.shape)}.")
    generator = torch.Generator().manual_seed(0)
    owners = torch.arange(len(pixels), device=pixels.device)
    largest = values.new_zeros(len(values))
    for _ in range(samples):
        noise = radius * (2 * torch.rand(pixels.shape[1:], generator=generator, dtype=torch.float64) - 1)
        moved = finite_planes("maps of noisy images", explain(pixels + noise.to(pixels), owners)).to(values)
        largest = torch.maximum(largest, (moved - values).flatten(1).norm(dim=1))
    norm: torch.Tensor = values.flatten(1).norm(dim=1)
    return largest / norm


def _max_sensitivity(given: Given) -> torch.Tensor:
    return max_sensitivity(given.maps, given.pixels, given.explain)


register(
    Metric(
        "max-sensitivity",
        _max_sensitivity,
        needs=("classes", "pixels", "explain"),
        direction=-1,
        kind="robustness",
        constant=torch.nan,
        on_request=True,
        meaning="Largest relative change of the map when noise that nobody would see is added to the image.",
    )
)
