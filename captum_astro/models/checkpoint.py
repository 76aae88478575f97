"""Reading a weights file: tensors only, recognised by its content, whatever its name ends with."""

from __future__ import annotations

import pickle
import re
import reprlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from captum_astro.models.errors import ModelError

Tensors = dict[str, torch.Tensor]

_SAVE = "Where it was written, save the weights alone: torch.save(model.state_dict(), 'weights.pt')."
_IN_FULL = "Where it was written, save each tensor dense and in full: tensor.contiguous()."
_NUMPY = (
    "holds NumPy arrays, as JAX models do. timm converts those that it knows: timm.create_model(NAME, "
    "checkpoint_path=FILE), then torch.save(model.state_dict(), 'weights.pt')"
)
_FOREIGN = (  # how the content begins, and what is said of it
    (
        rb"version https://git-lfs",
        "is a Git LFS pointer, not the weights themselves: run git lfs pull, or download them",
    ),
    (rb"\s*<(!doctype|!--|html|\?xml)", "is a web page, not the weights: download the file that the page describes"),
    (rb"\s*[{\[]", "is JSON, not the weights: give the file of the weights that belongs to it"),
    (rb"\x93NUMPY", _NUMPY),
    (
        rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|\x28\xb5\x2f\xfd",
        "is a compressed archive: unpack it, and give the file in it",
    ),
    (rb"\x89HDF", "is an HDF5 file, as Keras writes it: convert the weights to safetensors"),
)


_HEADER = 100_000_000  # bytes: the longest header that safetensors accepts


class _Ignored:
    """Takes the place of harmless values that are no tensors, such as a checkpoint's options; built from anything."""

    def __init__(self, *arguments: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


_IGNORED = [
    "argparse.Namespace", "numpy.dtype", "numpy.ndarray",
    *(f"{core}.multiarray.{name}" for core in ("numpy.core", "numpy._core") for name in ("scalar", "_reconstruct")),
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in ("PosixPath", "WindowsPath")),
]  # fmt: skip


def read(file: Path) -> Mapping[str, Any]:
    """The content of a weights file; nothing in it is executed.

    Args:
        file: Safetensors, or what ``torch.save`` wrote: tensors, and options or counts beside them.

    Raises:
        ModelError: If there is no such regular file, it is something else, damaged, or holds other objects.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"epoch": 3, "model": {"bias": torch.ones(2)}}, Path(folder, "weights.bin"))
        ...     read(Path(folder, "weights.bin"))
        {'epoch': 3, 'model': {'bias': tensor([1., 1.])}}
    """
    if file.is_dir():
        raise ModelError(f"{file} is a folder: give the weights file in it.")
    if not file.exists():
        raise ModelError(f"{file}: there is no such file.")
    if not file.is_file():
        raise ModelError(f"{file} is not a regular file, but a pipe or a device: copy its content to a file.")
    with file.open("rb") as opened:
        start = opened.read(64)
    if not start:
        raise ModelError(f"{file} is empty: copy or download it again.")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < _HEADER:
        return _safetensors(file)
    for pattern, what in _FOREIGN:
        if re.match(pattern, start, re.IGNORECASE):
            raise ModelError(f"{file} {what}.")
    if start.startswith(b"PK"):
        _check_archive(file)
    elif not start.startswith(pickle.PROTO):
        raise ModelError(f"{file} is neither safetensors nor a PyTorch file: give one of these.")
    return _torch(file)


def check_stored(file: Path, tensors: Tensors) -> None:
    """Refuse what takes more memory than its file: models are built, and positions resampled, by the shapes in it.

    Args:
        file: Where the tensors were read.
        tensors: The weights.

    Raises:
        ModelError: If one is not stored value by value.
    """
    most = file.stat().st_size
    for key, value in tensors.items():
        name = reprlib.repr(key)
        if value.layout is not torch.strided or value.is_quantized or value.is_meta or value.is_nested:
            raise ModelError(f"{file}: {name} is sparse, quantised or without values. {_IN_FULL}")
        if value.numel() * value.element_size() > most:
            raise ModelError(
                f"{file}: {name} has the shape {tuple(value.shape)}, more than the file holds: it repeats values. "
                f"{_IN_FULL}"
            )


def _safetensors(file: Path) -> Tensors:
    try:
        found: Tensors = safetensors.torch.load_file(file)
        return found
    except SafetensorError as error:
        raise _damaged(file, error) from error


def _torch(file: Path) -> Mapping[str, Any]:
    try:
        # opened here, as torch.load takes the ending of a name for the format
        with file.open("rb") as opened, torch.serialization.safe_globals([(_Ignored, name) for name in _IGNORED]):
            found = torch.load(opened, map_location="cpu", weights_only=True)
    except Exception as error:
        other = re.search(r"GLOBAL (\S+)", str(error))
        if other is not None:
            raise ModelError(f"{file} holds {other[1]}, and only tensors are read. {_SAVE}") from error
        raise _damaged(file, error) from error
    if not isinstance(found, Mapping):
        raise ModelError(f"{file} holds {type(found).__name__}, not named tensors. {_SAVE}")
    return found


def _check_archive(file: Path) -> None:
    """Refuse a zip archive that PyTorch's weights are not in."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    except Exception as error:  # a damaged table of contents raises many kinds
        raise _damaged(file, error) from error
    names = [member.filename for member in members]
    if any(name.endswith("/constants.pkl") for name in names):
        raise ModelError(f"{file} is a TorchScript program, not weights alone. {_SAVE}")
    if any(name.endswith("data.pkl") for name in names):
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):  # a few bytes may unpack to any size
            raise ModelError(f"{file} is compressed, as torch.save does not write it. {_SAVE}")
        return
    if any(name.endswith(".npy") for name in names):
        raise ModelError(f"{file} {_NUMPY}.")
    raise ModelError(f"{file} is an archive: unpack it, and give the weights file in it.")


def _damaged(file: Path, error: Exception) -> ModelError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if isinstance(error, pickle.UnpicklingError):  # torch's own message advises to execute the file
        reason = "it is a pickle, but not one that torch.save writes"
    return ModelError(f"{file} cannot be read; it may be damaged or incomplete: copy or download it again ({reason}).")
