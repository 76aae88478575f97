"""Whether a map falls on the object, based on `captum_astro.metrics.localisation`.

Unlike Quantus' own, these accept ``(B, C, H, W)`` explanations and masks with unknown pixels, and resolve ties at the
maximum deterministically.
"""

from __future__ import annotations

from typing import ClassVar

import torch

from captum_astro.metrics import localisation
from captum_astro.metrics.quantus.base import MaskMetric


class ExpectedPointingGame(MaskMetric):
    """Whether the largest value lies on the object; for ties, the fraction of tied pixels that do.

    From 0 to 1, higher is better; `localisation.pointing_game`. Masks of 1, 0 and -1 (unknown) in ``s_batch``. Source:
    Zhang et al., IJCV 126, 2018 (arXiv 1608.00507).

    Args:
        **kwargs: The options of any Quantus metric, see `TensorMetric`.
    """

    name: ClassVar[str] = "Expected pointing game"

    def agreement(self, maps: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """See `localisation.pointing_game`."""
        return localisation.pointing_game(maps, target)


class EnergyInside(MaskMetric):
    """The fraction of the map's positive part that lies on the object, `localisation.energy_inside`.

    From 0 to 1, higher is better. Masks of 1, 0 and -1 (unknown) in ``s_batch``. Source: Wang et al., CVPR workshops
    2020 (arXiv 1910.01279), section 4.3.

    Args:
        **kwargs: The options of any Quantus metric, see `TensorMetric`.

    Example:
        >>> import numpy as np
        >>> maps, masks = np.ones((1, 4, 4)), np.tri(4, dtype=int)[None]
        >>> maps[0, 0, 1] = 7
        >>> x, y = np.zeros((1, 3, 4, 4), dtype=np.float32), np.zeros(1, dtype=int)
        >>> EnergyInside()(model=None, x_batch=x, y_batch=y, a_batch=maps, s_batch=masks)
        [0.454...]
    """

    name: ClassVar[str] = "Energy inside"

    def agreement(self, maps: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """See `localisation.energy_inside`."""
        return localisation.energy_inside(maps, target)
