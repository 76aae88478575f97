"""A map as a segmentation of the object: pixel accuracy and mean IoU; average precision is in `segmentation_ap`.

The protocol of Chefer et al., "Transformer interpretability beyond attention visualization", CVPR 2021 (arXiv
2012.09838, section 4.2) and its published code, which VTranM (CVPR 2024, arXiv 2403.14552) follows: the map is
thresholded at its own mean, and unknown pixels are ignored. Maps and masks are ``(B, H, W)`` or ``(B, 1, H, W)``; masks
are 1 for the object, 0 for the background and -1 for unknown. Everything is float64, on the device of the maps, and no
image depends on the others in its batch.

A map with NaN or infinite values has a score of NaN. A constant map, which points nowhere, has no foreground.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray

from captum_astro.metrics._maps import MapsAndMasks, finite_maps, maps_and_masks
from captum_astro.metrics.declaration import ChanceFrom, Given, Metric, Pooling, Scores
from captum_astro.metrics.registry import register


class SegmentationCounts(NamedTuple):
    """Pixel counts of each image, float64, from which both the image's score and the set's follow.

    The counts of a set are the sums over its images; the scores accept any leading dimensions, ``(...)`` for ``(B,)``.

    Attributes:
        correct: ``(B,)``, correctly classified pixels.
        labelled: ``(B,)``, pixels whose class is known.
        intersection: ``(B, 2)``, correct background pixels and correct object pixels.
        union: ``(B, 2)``, pixels that are background in map or mask, and that are object in map or mask.
    """

    correct: torch.Tensor
    labelled: torch.Tensor
    intersection: torch.Tensor
    union: torch.Tensor

    def pixel_accuracy(self) -> torch.Tensor:
        """Correct over labelled pixels, ``(...)``; NaN where no pixel is known."""
        return self.correct / self.labelled

    def mean_iou(self) -> torch.Tensor:
        """The mean of the two classes' intersection over union, ``(...)``; NaN if a class does not occur."""
        return (self.intersection / self.union).mean(-1)

    def table(self) -> torch.Tensor:
        """``(..., 6)``: correct, labelled, intersection of background and of object, their unions."""
        return torch.cat([self.correct[..., None], self.labelled[..., None], self.intersection, self.union], -1)

    @classmethod
    def from_table(cls, table: torch.Tensor) -> SegmentationCounts:
        """The counts from their `table`, ``(..., 6)``.

        Example:
            >>> found = counts(torch.rand(2, 4, 4), torch.ones(2, 4, 4))
            >>> torch.equal(SegmentationCounts.from_table(found.table()).union, found.union)
            True
        """
        return cls(table[..., 0], table[..., 1], table[..., 2:4], table[..., 4:6])


def foreground(maps: torch.Tensor) -> torch.Tensor:
    """Where a map exceeds its own mean; nowhere for a constant map, or one that is not finite.

    Args:
        maps: ``(B, H, W)`` or ``(B, 1, H, W)``, of any scale.

    Returns:
        ``(B, H, W)`` bool.

    Raises:
        ValueError: If the shape is not a batch of maps.

    Example:
        >>> foreground(torch.tensor([[[0.0, 1.0], [2.0, 5.0]]]))
        tensor([[[False, False],
                 [False,  True]]])
    """
    maps, _ = finite_maps(maps)
    above = maps - maps.amin((1, 2), keepdim=True)  # so that a constant map's mean is exactly its value
    return above > above.mean((1, 2), keepdim=True)


def counts(maps: torch.Tensor, masks: torch.Tensor) -> SegmentationCounts:
    """Count the pixels of each image; all NaN for a map that is not finite.

    Args:
        maps: ``(B, H, W)`` or ``(B, 1, H, W)``, of any scale.
        masks: The same shape, of 1, 0 and -1.

    Returns:
        The counts, excluding unknown pixels.

    Raises:
        ValueError: If the shapes differ or are not a batch of maps, or a mask has other values.

    Example:
        >>> found = counts(torch.tensor([[[0.0, 1.0], [2.0, 5.0]]]), torch.tensor([[[-1, 0], [1, 1]]]))
        >>> found.correct, found.labelled
        (tensor([2.], dtype=torch.float64), tensor([3.], dtype=torch.float64))
    """
    given = maps_and_masks(maps, masks)
    found = foreground(given.maps)
    right = [~found & given.background, found & given.object]
    either = [(~found & given.labelled) | given.background, (found & given.labelled) | given.object]
    intersection = torch.stack([_count(given, pixels) for pixels in right], 1)
    union = torch.stack([_count(given, pixels) for pixels in either], 1)
    return SegmentationCounts(intersection.sum(1), _count(given, given.labelled), intersection, union)


def pixel_accuracy(maps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """The fraction of the known pixels that are classified correctly, as ``sklearn.metrics.accuracy_score``.

    Args:
        maps: ``(B, H, W)`` or ``(B, 1, H, W)``, of any scale.
        masks: The same shape, of 1, 0 and -1.

    Returns:
        ``(B,)``, from 0 to 1; NaN where no pixel is known or the map is not finite.

    Raises:
        ValueError: As for `counts`.

    Example:
        >>> pixel_accuracy(torch.tensor([[[0.0, 1.0], [2.0, 5.0]]]), torch.tensor([[[-1, 0], [1, 1]]]))
        tensor([0.6667], dtype=torch.float64)
    """
    return counts(maps, masks).pixel_accuracy()


def mean_iou(maps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Intersection over union of each image, averaged over background and object: macro ``jaccard_score``.

    Args:
        maps: ``(B, H, W)`` or ``(B, 1, H, W)``, of any scale.
        masks: The same shape, of 1, 0 and -1.

    Returns:
        ``(B,)``, from 0 to 1; NaN where a class is neither in the map nor in the mask, or the map is not finite.

    Raises:
        ValueError: As for `counts`.

    Example:
        >>> mean_iou(torch.tensor([[[0.0, 1.0], [2.0, 5.0]]]), torch.tensor([[[-1, 0], [1, 1]]]))
        tensor([0.5000], dtype=torch.float64)
    """
    return counts(maps, masks).mean_iou()


def pooled_pixel_accuracy(counts: SegmentationCounts) -> float:
    """Pixel accuracy over the pixels of all images, as in the tables of the papers.

    Args:
        counts: The counts of any number of images.

    Returns:
        From 0 to 1; NaN where no pixel is known or a map was not finite.

    Example:
        >>> maps, masks = torch.tensor([[[0.0, 1.0]], [[0.0, 1.0]]]), torch.tensor([[[0, 1]], [[1, -1]]])
        >>> pooled_pixel_accuracy(counts(maps, masks))
        0.6666666666666666
    """
    return SegmentationCounts.from_table(counts.table().sum(0)).pixel_accuracy().item()


def pooled_mean_iou(counts: SegmentationCounts) -> float:
    """Mean IoU of a set: for each class over the pixels of all images, then the mean of the two.

    Args:
        counts: The counts of any number of images.

    Returns:
        From 0 to 1; NaN where a class is in no map and no mask, or a map was not finite.

    Example:
        >>> maps, masks = torch.tensor([[[0.0, 1.0]], [[0.0, 1.0]]]), torch.tensor([[[0, 1]], [[1, -1]]])
        >>> pooled_mean_iou(counts(maps, masks))
        0.5
    """
    return SegmentationCounts.from_table(counts.table().sum(0)).mean_iou().item()


def _count(given: MapsAndMasks, pixels: torch.Tensor) -> torch.Tensor:
    return given.undefined_to_nan(pixels.flatten(1).sum(1).double())


def _counted(given: Given) -> SegmentationCounts:
    return counts(given.maps, given.masks)


def _from_counts(score: Callable[[SegmentationCounts], torch.Tensor]) -> Callable[[Given], Scores]:
    """Each image's own score, with the counts from which the set's score is pooled."""

    def compute(given: Given) -> Scores:
        found = given.shared(_counted)
        return Scores(score(found), found.table())

    return compute


def _pooled(score: Callable[[SegmentationCounts], torch.Tensor]) -> Pooling:
    """The same score from summed counts."""

    def value(sums: NDArray[Any]) -> NDArray[Any]:
        pooled: NDArray[Any] = score(SegmentationCounts.from_table(torch.as_tensor(sums, dtype=torch.float64))).numpy()
        return pooled

    return Pooling(value, parts=6, weight=1)  # the weight of a sample is its number of labelled pixels


def _of_a_coin(share: NDArray[Any]) -> NDArray[Any]:
    """The mean IoU of a coin-flip mask, if the object has a share s of the pixels.

    The IoU of the object is ``s / (1 + s)`` and that of the background ``(1 - s) / (2 - s)``.
    """
    found: NDArray[Any] = (share / (1 + share) + (1 - share) / (2 - share)) / 2
    return found


_ABOVE = "The map, cut at its own mean, as a segmentation of the object: "
for _name, _score, _chance, _meaning in (
    ("pixel accuracy", SegmentationCounts.pixel_accuracy, 0.5, "the share of pixels that are right."),
    (
        "mIoU",
        SegmentationCounts.mean_iou,
        ChanceFrom("object share", _of_a_coin),
        "intersection over union, the mean of object and background.",
    ),
):
    register(
        Metric(
            _name,
            _from_counts(_score),
            needs=("masks",),
            kind="segmentation",
            percent=True,
            chance=_chance,
            pooling=_pooled(_score),
            constant=torch.nan,
            meaning=_ABOVE + _meaning,
        )
    )
