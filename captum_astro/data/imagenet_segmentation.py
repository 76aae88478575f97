"""ImageNet-Segmentation: 4276 images with their objects' masks, in one MATLAB file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from captum_astro.data.arrays import as_image
from captum_astro.data.files import DataError, regular_file
from captum_astro.data.hdf5 import array, member, referenced
from captum_astro.data.imagenet_classes import imagenet_classes
from captum_astro.data.registry import register_data
from captum_astro.data.samples import Sample, checked
from captum_astro.extras import needed

_LONGEST = 1000  # characters of a class or a name


@register_data("imagenet-segmentation", place="FILE")
class ImageNetSegmentation(Dataset[Sample]):
    """The images and masks of ``gtsegs_ijcv.mat``, which is an HDF5 file.

    In it ``/value/img`` and ``/value/gt`` are columns of references: to an image, and to a cell with a reference to its
    mask. MATLAB stores arrays column by column, so they are transposed. In a mask 0 is the background and 1 the object;
    anything else is unknown. ``/value/target``, if it exists, is the WordNet class: the label is None if that is not
    one of the 1000.

    Args:
        path: The file.

    Raises:
        DataError: If there is no such file, or its format is different; at a sample, if that is damaged.
        MissingExtraError: If h5py is not installed.

    Source:
        Guillaumin, Kuettel and Ferrari, "ImageNet auto-annotation with segmentation propagation", IJCV 2014.
        The use in explanation: Chefer et al., CVPR 2021.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = regular_file(path)
        with self._opened() as value:
            images, masks = (member(value, name).shape for name in ("img", "gt"))
            if len(images) != 2 or images != masks or images[0] == 0:
                raise DataError(f"{self._path}: /value/img is {images} and /value/gt {masks}, not both (N, 1).")
            self._count = int(images[0])

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        checked(index, self._count)
        # opened each time: an open HDF5 file can neither be shared among processes nor pickled
        with self._opened(f"image {index}") as value:
            image = as_image(_pixels(array(referenced(member(value, "img"), (index, 0)))))
            gt = referenced(member(value, "gt"), (index, 0))
            mask = array(referenced(gt, (0, 0)) if gt.dtype == object else gt).T
            wnid = _text(value, "target", index)
            name = _text(value, "id", index)
        if mask.shape != image.shape[1:]:
            raise DataError(f"{self._path}: image {index}: pixels of {tuple(image.shape[1:])}, a mask of {mask.shape}.")
        known = np.where(mask == 1, 1, np.where(mask == 0, 0, -1)).astype(np.int8)
        label = imagenet_classes().get(wnid)
        return Sample(image, label, torch.from_numpy(known), None, f"{index} {name}".strip())

    @contextmanager
    def _opened(self, place: str = "") -> Iterator[Any]:
        h5py = needed("gtsegs_ijcv.mat", "h5py")
        where = f"{self._path}: {place}: " if place else f"{self._path}: "
        try:
            with h5py.File(self._path, "r") as file:
                yield member(file, "value")
        except DataError:
            raise
        except (
            OSError,
            KeyError,
            ValueError,
            IndexError,
            TypeError,
            AttributeError,
            RuntimeError,
            OverflowError,
        ) as error:
            raise DataError(
                f"{where}not in the form of gtsegs_ijcv.mat, or damaged ({type(error).__name__}: {str(error)[:100]})."
            ) from error


def _pixels(stored: np.ndarray) -> np.ndarray:
    """``(3, W, H)`` to ``(3, H, W)``; a grey ``(W, H)`` becomes three channels."""
    if stored.ndim == 2:
        stored = np.stack([stored] * 3)
    if stored.ndim != 3 or stored.shape[0] != 3:
        raise ValueError(f"an image is stored as (3, W, H), not {stored.shape}")
    return np.transpose(stored, (0, 2, 1))


def _text(value: Any, field: str, index: int) -> str:
    """A MATLAB string, which is an array of character codes; empty if the field does not exist."""
    if field not in value:
        return ""
    codes = array(referenced(member(value, field), (index, 0))).ravel()
    if len(codes) > _LONGEST:
        raise ValueError(f"{field} is a text of {len(codes)} characters")
    return "".join(chr(int(number)) for number in codes).strip()
