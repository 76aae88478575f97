"""The ClickMe samples inside a file, by format: TFRecord, NPZ, PTH and WebDataset."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from captum_astro.data._example import parse_example
from captum_astro.data._tensor_file import as_array, read_tensors
from captum_astro.data.archives import open_zip, zip_member
from captum_astro.data.arrays import decoded
from captum_astro.data.files import LARGEST_ARRAY, read_whole
from captum_astro.data.npy import from_npy
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
        archive = open_zip(path)
    except ValueError as error:
        if first == 0:
            yield _failing(path.name, str(error))
        return
    with archive:
        members = [
            info for info in archive.infolist() if info.filename.lower().endswith(".npz") and not _hidden(info.filename)
        ]
        members.sort(key=lambda info: info.filename)
        if not members and first == 0:
            yield _failing(path.name, "no .npz in this .zip, or it is cut short")
        for member in members[first::step]:
            yield Entry(f"{path.name}:{member.filename}", "", partial(_member, archive, member))


def _tar(path: Path, first: int, step: int) -> Iterator[Entry]:
    """Neighbouring members whose names agree up to the first dot form one sample."""
    index, key, end, problem = -1, "", 0, ""
    parts: dict[str, bytes | None] = {}
    seen: set[str] = set()
    try:
        with tarfile.open(path, "r|") as archive:
            for member in archive:
                end = archive.offset  # of the next header
                if not member.isfile() or _hidden(member.name):
                    continue
                stem, extension = _split(member.name)
                if stem != key or extension in seen:
                    if index >= 0 and index % step == first:
                        yield Entry(f"{path.name}:{key}", "", partial(_webdataset, parts))
                    index, key, parts, seen = index + 1, stem, {}, set()
                seen.add(extension)
                if index % step != first or extension not in _MEMBERS:
                    continue
                large = member.issparse() or member.size > LARGEST_ARRAY  # sparse: any number of zeros in a few bytes
                file = None if large else archive.extractfile(member)
                parts[extension] = file.read() if file is not None else None
        problem = _after_last(path, end) or ("" if index >= 0 else "no sample in this .tar")
    except (tarfile.TarError, OSError, ValueError, KeyError, IndexError, OverflowError) as error:
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
    return _arrays(read_whole(path))


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Parts:
    return _arrays(zip_member(archive, member))


def _arrays(data: bytes) -> Parts:
    try:
        archive = open_zip(data)
    except ValueError as error:
        raise ValueError("not an .npz file, or cut short") from error
    with archive:
        members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
        _require(members, "image", "heatmap")
        image, heatmap, label = (
            from_npy(zip_member(archive, members[name])) if name in members else None
            for name in ("image", "heatmap", "label")
        )
        return image, heatmap, label


def _pth(path: Path) -> Parts:
    found = read_tensors(path)
    _require(found, "image", "heatmap")
    image, heatmap, label = (as_array(found.get(key), key) for key in ("image", "heatmap", "label"))
    return image, heatmap, label


def _webdataset(found: dict[str, bytes | None]) -> Parts:
    parts = {extension: data for extension, data in found.items() if data is not None}
    if len(parts) < len(found):
        refused = ", ".join(sorted(found.keys() - parts))
        raise ValueError(f"{refused}: sparse, or more than {LARGEST_ARRAY >> 20} MiB")
    picture = next((extension for extension in _PICTURES if extension in parts), "jpg")
    _require(parts, picture, _HEATMAP)
    try:
        values = from_npy(parts[_HEATMAP])
    except ValueError as error:
        raise ValueError(f"{_HEATMAP} is {error}") from error
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
