"""The ClickMe samples inside a file, by format: TFRecord, NPZ, PTH and WebDataset."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch

from captum_astro.data._example import parse_example
from captum_astro.data.arrays import decoded
from captum_astro.data.tfrecord import frames

_PICTURES = ("jpg", "jpeg", "png")
_HEATMAP = "heatmap.npy"
_MEMBERS = {*_PICTURES, _HEATMAP, "cls"}
_TAR_BLOCK = 512

Parts = tuple[Any, Any, Any]


class Entry(NamedTuple):
    """A sample to be read: ``read`` returns image, heatmap and label, or raises ValueError; ``place`` locates it."""

    name: str
    place: str
    read: Callable[[], Parts]


def _tfrecords(path: Path, first: int, step: int) -> Iterator[Entry]:
    if path.stat().st_size == 0 and first == 0:
        yield _failing(path.name, "the file is empty")
    for frame in frames(path, True, first, step):
        place = f"byte {frame.offset}: "
        if frame.problem:
            yield _failing(f"{path.name}:{frame.number}", frame.problem, place)
        else:
            yield Entry(f"{path.name}:{frame.number}", place, partial(_example, frame.payload))


def _zip(path: Path, first: int, step: int) -> Iterator[Entry]:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        if first == 0:
            yield _failing(path.name, "not a .zip file, or cut short (its table of contents is at its end)")
        return
    with archive:
        members = sorted(name for name in archive.namelist() if name.lower().endswith(".npz") and not _hidden(name))
        if not members and first == 0:
            yield _failing(path.name, "no .npz in this .zip, or it is cut short")
        for member in members[first::step]:
            yield Entry(f"{path.name}:{member}", "", partial(_member, archive, member))


def _tar(path: Path, first: int, step: int) -> Iterator[Entry]:
    """Neighbouring members whose names agree up to the first dot form one sample."""
    index, key, end, problem = -1, "", 0, ""
    parts: dict[str, bytes] = {}
    seen: set[str] = set()
    try:
        with tarfile.open(path, "r|") as archive:
            for member in archive:
                end = member.offset_data + -(-member.size // _TAR_BLOCK) * _TAR_BLOCK
                if not member.isfile() or _hidden(member.name):
                    continue
                stem, extension = _split(member.name)
                if stem != key or extension in seen:
                    if index >= 0 and index % step == first:
                        yield Entry(f"{path.name}:{key}", "", partial(_webdataset, parts))
                    index, key, parts, seen = index + 1, stem, {}, set()
                seen.add(extension)
                wanted = index % step == first and extension in _MEMBERS
                file = archive.extractfile(member) if wanted else None
                if file is not None:
                    parts[extension] = file.read()
        problem = _after_last(path, end) or ("" if index >= 0 else "no sample in this .tar")
    except tarfile.TarError as error:
        problem = f"not a .tar file, or damaged, or cut short ({error})"
    if max(index, 0) % step != first:
        return
    if not problem or (_HEATMAP in parts and "cls" in parts and not seen.isdisjoint(_PICTURES)):
        yield Entry(f"{path.name}:{key}", "", partial(_webdataset, parts))
        key = ""
    if problem:
        yield _failing(f"{path.name}:{key}".rstrip(":"), problem, f"byte {end}: ")


def _after_last(path: Path, end: int) -> str:
    """What is wrong with the byte after the last member: a complete archive has a block of zeros there.

    Without this check a damaged header would end the archive silently.
    """
    with open(path, "rb") as file:
        file.seek(end)
        block = file.read(_TAR_BLOCK)
    if len(block) < _TAR_BLOCK:
        return "cut short: the mark that ends a .tar is missing"
    return "a member's header is damaged, so nothing from here on can be read" if any(block) else ""


def _example(payload: bytes) -> Parts:
    features = parse_example(payload)
    _require(features, "image", "heatmap")
    image, heatmap = (_bytes(features[name], name) for name in ("image", "heatmap"))
    return decoded(image, 3), decoded(heatmap, 1), features.get("label") or None


def _bytes(values: list[bytes] | list[float] | list[int], name: str) -> bytes:
    if len(values) == 1 and isinstance(values[0], bytes):
        return values[0]
    raise ValueError(f"{name} is not one string of bytes")


def _npz(path: Path) -> Parts:
    return _arrays(path.read_bytes())


def _member(archive: zipfile.ZipFile, name: str) -> Parts:
    try:
        data = archive.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(f"damaged in the .zip ({error})") from error
    return _arrays(data)


def _arrays(data: bytes) -> Parts:
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise ValueError("not an .npz file, or cut short")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            _require(arrays.files, "image", "heatmap")
            return arrays["image"], arrays["heatmap"], arrays["label"] if "label" in arrays.files else None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, MemoryError) as error:
        raise ValueError(f"the .npz is damaged ({error})") from error


def _pth(path: Path) -> Parts:
    data = io.BytesIO(path.read_bytes())
    try:
        found = torch.load(data, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError("refused by torch.load(weights_only=True): more than tensors in it, or damaged") from error
    except Exception as error:
        raise ValueError(f"not a file of tensors, or damaged ({type(error).__name__})") from error
    if not isinstance(found, dict):
        raise ValueError(f"a dictionary of tensors belongs here, not a {type(found).__name__}")
    _require(found, "image", "heatmap")
    image, heatmap, label = (_array(found.get(key), key) for key in ("image", "heatmap", "label"))
    return image, heatmap, label


def _array(value: object, key: str) -> Any:
    if isinstance(value, torch.Tensor):
        return (value.detach().float() if value.is_floating_point() else value).numpy()
    if value is None or isinstance(value, int):
        return value
    raise ValueError(f"{key} is a {type(value).__name__}, not a tensor")


def _webdataset(parts: dict[str, bytes]) -> Parts:
    picture = next((extension for extension in _PICTURES if extension in parts), "jpg")
    _require(parts, picture, _HEATMAP)
    heatmap = parts[_HEATMAP]
    if not heatmap.startswith(b"\x93NUMPY"):
        raise ValueError(f"{_HEATMAP} is not an .npy file")
    try:
        values = np.load(io.BytesIO(heatmap), allow_pickle=False)
    except (EOFError, OSError, MemoryError) as error:
        raise ValueError(f"{_HEATMAP} is damaged ({error})") from error
    label = parts["cls"].decode("ascii", "replace").strip() if "cls" in parts else None
    if label is not None and not label.isdecimal():
        raise ValueError(f"cls is {label[:20]!r}, not a class number")
    return decoded(parts[picture], 3), values, None if label is None else int(label)


def _require(there: Iterable[str], *wanted: str) -> None:
    names = [str(name) for name in there]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ValueError(f"no {' and no '.join(missing)} in it; there is {', '.join(sorted(names)) or 'nothing'}")


def _failing(name: str, reason: str, place: str = "") -> Entry:
    def read() -> Parts:
        raise ValueError(reason)

    return Entry(name, place, read)


def _hidden(member: str) -> bool:
    path = PurePosixPath(member)
    return path.name.startswith(".") or "__MACOSX" in path.parts


def _split(member: str) -> tuple[str, str]:
    path = PurePosixPath(member)
    stem, _, extension = path.name.partition(".")
    return str(path.parent / stem), extension.lower()


SINGLE: dict[str, Callable[[Path], Parts]] = {"npz": _npz, "pth": _pth}
SHARDS: dict[str, Callable[[Path, int, int], Iterator[Entry]]] = {"tfrecord": _tfrecords, "zip": _zip, "tar": _tar}
