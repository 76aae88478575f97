"""Dictionaries of tensors from the files of ``torch.save``: tensors and numbers, stored as they are."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captum_astro.data.archives import open_zip
from captum_astro.data.files import LARGEST_ARRAY, read_whole


def read_tensors(path: Path) -> dict[Any, Any]:
    """The dictionary in a file.

    Only the zip form is read, which ``torch.save`` has written since PyTorch 1.6; in it nothing is compressed, so a
    small file cannot announce a large tensor.

    Raises:
        ValueError: If it is not such a file, is damaged, or has more than tensors in it.
    """
    data = read_whole(path)
    try:
        with open_zip(data) as archive:
            packed = any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
    except ValueError as error:
        raise ValueError("not a file of tensors in the form of PyTorch 1.6 or later, or damaged") from error
    if packed:
        raise ValueError("a compressed file, which torch.save does not write")
    try:
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError("refused by torch.load(weights_only=True): more than tensors in it, or damaged") from error
    except Exception as error:  # torch raises many kinds for damaged files
        raise ValueError(f"not a file of tensors, or damaged ({type(error).__name__})") from error
    if not isinstance(found, dict):
        raise ValueError(f"a dictionary of tensors belongs here, not a {type(found).__name__}")
    return found


def as_array(value: object, name: str) -> np.ndarray | int | None:
    """The values of a tensor, floats as float32; a number or None as it is.

    Raises:
        ValueError: If it is something else, or its values are not in memory one by one, as those of a sparse tensor.
    """
    if value is None or isinstance(value, int):
        return value
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{name} is a {type(value).__name__}, not a tensor")
    if value.layout is not torch.strided or value.device.type != "cpu" or value.is_quantized:
        raise ValueError(f"{name} is a tensor of another kind ({value.layout}, {value.device}, {value.dtype})")
    if value.numel() * 4 > LARGEST_ARRAY:  # a stride of 0 repeats one value any number of times
        raise ValueError(f"{name} has the shape {tuple(value.shape)}, more than {LARGEST_ARRAY >> 20} MiB")
    value = value.detach().resolve_conj().resolve_neg()
    return (value.float() if value.is_floating_point() else value).numpy()
