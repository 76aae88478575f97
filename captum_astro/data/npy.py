"""Arrays of numbers from the bytes of ``.npy`` files, without unpickling."""

from __future__ import annotations

import io
import math

import numpy as np
from numpy.lib.format import read_array_header_1_0, read_array_header_2_0, read_magic


def from_npy(data: bytes) -> np.ndarray:
    """The numbers in the bytes of an ``.npy`` file; a view of them, so that nothing is allocated by the header's word.

    Raises:
        ValueError: If it is not such a file, has anything other than numbers, or is longer or shorter than announced.

    Example:
        >>> file = io.BytesIO()
        >>> np.save(file, np.arange(4).reshape(2, 2))
        >>> from_npy(file.getvalue()).tolist()
        [[0, 1], [2, 3]]
    """
    file = io.BytesIO(data)
    try:
        read_header = {(1, 0): read_array_header_1_0, (2, 0): read_array_header_2_0}[read_magic(file)]
        shape, fortran, dtype = read_header(file)
    except Exception as error:  # the header is Python text, whose parsers raise many kinds
        raise ValueError(f"not an .npy file, or damaged ({str(error)[:100]})") from error
    if dtype.hasobject:
        raise ValueError("Python objects in it, which are not unpickled (allow_pickle=False)")
    if dtype.kind not in "biuf":
        raise ValueError(f"it has {str(dtype)[:40]}, where numbers belong")
    there = len(data) - file.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != there:
        raise ValueError(f"damaged: {str(shape)[:60]} numbers of {dtype} are announced, {there} bytes are there")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape, order="F" if fortran else "C")
