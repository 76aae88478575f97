"""A map as a segmentation of the object, based on `captum_astro.metrics.segmentation`."""

from __future__ import annotations

from typing import ClassVar

import torch

from captum_astro.metrics import segmentation, segmentation_ap
from captum_astro.metrics.quantus.base import MaskMetric


class PixelAccuracy(MaskMetric):
    """The fraction of correctly classified pixels, with the map thresholded at its mean.

    From 0 to 1, higher is better; per image, `segmentation.pixel_accuracy`. Masks of 1, 0 and -1 (unknown) in
    ``s_batch``. Source: Chefer et al., CVPR 2021 (arXiv 2012.09838), section 4.2.

    Args:
        **kwargs: The options of any Quantus metric, see `TensorMetric`.

    Example:
        >>> import numpy as np
        >>> masks = np.random.default_rng(0).integers(-1, 2, (2, 8, 8))
        >>> x, y = np.zeros((2, 3, 8, 8), dtype=np.float32), np.zeros(2, dtype=int)
        >>> PixelAccuracy()(model=None, x_batch=x, y_batch=y, a_batch=masks == 1.0, s_batch=masks)
        [1.0, 1.0]
    """

    name: ClassVar[str] = "Pixel accuracy"

    def agreement(self, maps: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """See `segmentation.pixel_accuracy`."""
        return segmentation.pixel_accuracy(maps, target)


class MeanIoU(MaskMetric):
    """Intersection over union, averaged over background and object, with the map thresholded at its mean.

    From 0 to 1, higher is better; per image, `segmentation.mean_iou`. Masks of 1, 0 and -1 (unknown) in ``s_batch``.
    Source: Chefer et al., CVPR 2021 (arXiv 2012.09838), section 4.2.

    Args:
        **kwargs: The options of any Quantus metric, see `TensorMetric`.
    """

    name: ClassVar[str] = "Mean IoU"

    def agreement(self, maps: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """See `segmentation.mean_iou`."""
        return segmentation.mean_iou(maps, target)


class AveragePrecision(MaskMetric):
    """Average precision over both classes, `segmentation_ap.average_precision`, whose mean is the papers' mAP.

    From 0 to 1, higher is better; chance is 1/2. Masks of 1, 0 and -1 (unknown) in ``s_batch``. Source: Chefer et al.,
    CVPR 2021 (arXiv 2012.09838), section 4.2, and its code.

    Args:
        **kwargs: The options of any Quantus metric, see `TensorMetric`.
    """

    name: ClassVar[str] = "Average precision"

    def agreement(self, maps: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """See `segmentation_ap.average_precision`."""
        return segmentation_ap.average_precision(maps, target)
