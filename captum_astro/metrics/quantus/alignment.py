"""Agreement of explanations with human attention maps, based on `captum_astro.metrics.alignment`."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from captum_astro.metrics import alignment
from captum_astro.metrics.quantus.base import TargetMetric


class HumanAlignment(TargetMetric):
    """A metric that needs human maps: real values in ``s_batch``, ``(B, H, W)`` or ``(B, 1, H, W)``.

    Raises:
        ValueError: When called, if ``s_batch`` is missing, or a map is not valid for the function.
    """

    target: ClassVar[str] = "the human maps"


class SpearmanAlignment(HumanAlignment):
    """Rank correlation of explanation and human map, `alignment.spearman`.

    From -1 to 1, higher is better; NaN where a map is constant. Source: Fel et al., NeurIPS 2022 (arXiv 2211.04533).

    Args:
        **kwargs: The options of any Quantus metric, see `TensorMetric`.

    Example:
        >>> import numpy as np
        >>> maps = np.random.default_rng(0).random((2, 1, 8, 8))
        >>> x, y = np.zeros((2, 3, 8, 8), dtype=np.float32), np.zeros(2, dtype=int)
        >>> SpearmanAlignment()(model=None, x_batch=x, y_batch=y, a_batch=maps, s_batch=maps**2)
        [1.0, 1.0]
    """

    name: ClassVar[str] = "Spearman alignment"

    def agreement(self, maps: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """See `alignment.spearman`."""
        return alignment.spearman(maps, target)


class DiceAlignment(HumanAlignment):
    """Dice overlap of the top pixels of explanation and human map, `alignment.dice`.

    From 0 to 1, higher is better. Source: the code of Fel et al., NeurIPS 2022 (arXiv 2211.04533).

    Args:
        percentile: Pixels strictly above it are compared, each map by its own.
        **kwargs: The options of any Quantus metric, see `TensorMetric`.
    """

    name: ClassVar[str] = "Dice alignment"

    def __init__(self, percentile: float = 90.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.percentile = percentile

    def agreement(self, maps: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """See `alignment.dice`."""
        return alignment.dice(maps, target, self.percentile)


class IoUAlignment(HumanAlignment):
    """Intersection over union of the top pixels of explanation and human map, `alignment.iou`.

    From 0 to 1, higher is better. Source: the code of Fel et al., NeurIPS 2022 (arXiv 2211.04533).

    Args:
        percentile: Pixels strictly above it are compared, each map by its own.
        **kwargs: The options of any Quantus metric, see `TensorMetric`.
    """

    name: ClassVar[str] = "IoU alignment"

    def __init__(self, percentile: float = 90.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.percentile = percentile

    def agreement(self, maps: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """See `alignment.iou`."""
        return alignment.iou(maps, target, self.percentile)


class SSIMAlignment(HumanAlignment):
    """Structural similarity of explanation and human map, each rescaled to 0 .. 1, `alignment.ssim`.

    At most 1, higher is better. Source: Wang et al., IEEE TIP 13(4), 2004, Eq. 13.

    Args:
        window: Side of the windows in pixels, odd, at least 3.
        **kwargs: The options of any Quantus metric, see `TensorMetric`.
    """

    name: ClassVar[str] = "SSIM alignment"

    def __init__(self, window: int = 7, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.window = window

    def agreement(self, maps: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """See `alignment.ssim`."""
        return alignment.ssim(maps, target, self.window)
