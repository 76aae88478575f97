"""Datasets in HDF5 files whose values are in the file itself: plain numbers or references, within limits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from captum_astro.data.files import LARGEST_ARRAY
from captum_astro.extras import needed

if TYPE_CHECKING:
    import h5py

_FILTERS = {"deflate": 1, "shuffle": 2, "fletcher32": 3}  # built in; others are libraries that HDF5 would load


def member(group: h5py.Group, name: str) -> Any:
    """A group or dataset that a group itself contains.

    Raises:
        ValueError: If it does not exist, or is a link to another place or file.
    """
    h5py = needed("An HDF5 file", "h5py")
    if name not in group:
        raise ValueError(f"there is no {group.name.rstrip('/')}/{name}")
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is a link, which is not followed")
    found = group[name]
    return found if isinstance(found, h5py.Group) else _plain(found)


def referenced(column: h5py.Dataset, index: tuple[int, ...]) -> h5py.Dataset:
    """The dataset to which one element of a dataset of references points.

    Raises:
        ValueError: If it is not a reference, or points to anything other than plain values in the same file.
    """
    h5py = needed("An HDF5 file", "h5py")
    if h5py.check_ref_dtype(column.dtype) is not h5py.Reference:
        raise ValueError(f"{column.name} has {column.dtype}, where references belong")
    return _plain(column.file[column[index]])


def array(dataset: h5py.Dataset) -> np.ndarray:
    """All values of a dataset of numbers.

    Raises:
        ValueError: If they are not numbers.
    """
    if dataset.dtype.kind not in "biuf":
        raise ValueError(f"{dataset.name} has {dataset.dtype}, where numbers belong")
    return np.asarray(dataset)


def _plain(found: Any) -> h5py.Dataset:
    """The object, if it is a dataset that can be read without another file, a library or much memory."""
    h5py = needed("An HDF5 file", "h5py")
    if not isinstance(found, h5py.Dataset) or found.shape is None:
        raise ValueError(f"a {type(found).__name__.lower()} without values, where a dataset belongs")
    properties = found.id.get_create_plist()
    if properties.get_external_count() or found.is_virtual:
        raise ValueError("its values are in another file, which is not read")
    filters = {properties.get_filter(number)[0] for number in range(properties.get_nfilters())}
    if not filters <= set(_FILTERS.values()):
        raise ValueError(f"it needs a filter other than {', '.join(_FILTERS)}")
    for shape in (found.shape, found.chunks or ()):
        if math.prod(shape) * found.dtype.itemsize > LARGEST_ARRAY:
            raise ValueError(f"{shape} values of {found.dtype} are more than {LARGEST_ARRAY >> 20} MiB")
    return found
