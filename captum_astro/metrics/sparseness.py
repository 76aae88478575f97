"""Sparseness: whether a map's values are in few pixels.

Source: Chalasani et al., "Concise explanations of neural networks using adversarial training", ICML 2020 (arXiv
1810.06583), for the Gini index as a metric of maps; Hurley and Rickard, IEEE TIT 55(10), 2009, for its definition.
"""

from __future__ import annotations

import torch

from captum_astro.metrics._maps import finite_maps
from captum_astro.metrics.declaration import RANDOM_MAPS, Metric
from captum_astro.metrics.registry import register


def sparseness(maps: torch.Tensor) -> torch.Tensor:
    """The Gini index of a map's absolute values: 0 if all are equal, near 1 if one pixel has everything.

    It says nothing of whether a map is right, and depends on the size of the map: compare maps of one size.

    Args:
        maps: ``(B, H, W)`` or ``(B, 1, H, W)``, of any scale.

    Returns:
        ``(B,)`` float64, higher is sparser; NaN for a map of zeros, or with NaN or infinite values.

    Raises:
        ValueError: If it is not a batch of maps.

    Example:
        >>> sparseness(torch.tensor([[[1.0, 1.0], [1.0, -1.0]], [[0.0, 0.0], [0.0, 4.0]]]))
        tensor([0.0000, 0.7500], dtype=torch.float64)
    """
    values, finite = finite_maps(maps)
    ordered = values.flatten(1).abs().sort(dim=1).values
    count = ordered.shape[1]
    weights = 2 * torch.arange(1, count + 1, dtype=torch.float64, device=ordered.device) - count - 1
    index = (ordered * weights).sum(1) / (count * ordered.sum(1))
    return torch.where(finite, index, torch.nan)


register(
    Metric(
        "sparseness",
        lambda given: sparseness(given.maps),
        kind="complexity",
        chance=RANDOM_MAPS,
        constant=torch.nan,
        ranks=False,
        meaning="Whether few pixels hold all of the map (1), or all pixels the same (0); not whether it is right.",
    )
)
