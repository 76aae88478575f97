"""ClickMe, where people clicked on what makes an image recognisable, in the forms in which it is found on disks."""

from __future__ import annotations

import io
import pickle
import re
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from captum_astro.data.human import HumanSample, as_human, as_image, decoded
from captum_astro.data.tfrecord import CorruptRecordError, frames, parse_example

_SUFFIXES = {".npz": "npz", ".zip": "zip", ".pth": "pth", ".pt": "pth", ".tar": "tar"}
_SPLIT = re.compile(r"(?<![a-z])(trainval|train|val|test)(?![a-z])")
_TFRECORD = re.compile(r"\.tfrecords?(-[0-9]+-of-[0-9]+)?$")
_PICTURES = ("jpg", "jpeg", "png")
_HEATMAP = "heatmap.npy"
_MEMBERS = {*_PICTURES, _HEATMAP, "cls"}
_TAR_BLOCK = 512


class ClickMe(IterableDataset[HumanSample]):
    """ClickMe samples, one at a time, from any of the forms in which people hold the dataset.

    ====================  ====================================================================================
    TFRecord              ``image`` and ``heatmap`` as JPEG (the Harmonization release), or as raw float32 of
                          3 x side x side in 0 to 255 and side x side (ClickMe 1.0); ``label``
    NPZ                   a folder of ``.npz``, or the ``.zip`` as downloaded: ``image``, ``heatmap``, ``label``
    PTH                   a folder of ``.pth``: a dictionary of the tensors ``image``, ``heatmap``, ``label``
    WebDataset            ``.tar`` shards with ``jpg``, ``heatmap.npy``, ``cls``
    ====================  ====================================================================================

    Samples come in the order of the file names, and inside a file in its own order (inside a ``.zip`` by name). In a
    ``DataLoader`` each worker takes its own files, or every n-th sample where there are fewer shards than workers, so
    none comes twice. A sample without a label has ``label=None``. Heatmaps of uint8 are divided by 255, those of floats
    kept as they are, at whatever size they have: ``prepare_heatmap`` takes any. ``name`` is the file, and for a shard
    the number or name of the sample in it: ``val-3.tfrecords:17``.

    Nothing is unpickled: ``.npz`` with objects and ``.pth`` with more than tensors are refused.

    Args:
        path: A file, a folder (its own files, not those of its subfolders), or a pattern for the files of a folder, as
            in ``"click-me/clickme-val-*.tar"``.
        on_corrupt: ``"raise"``, or ``"skip"`` to pass over what cannot be read, with a warning for each.

    Attributes:
        skipped: What the latest pass has skipped: pairs of a name and a reason. Every ``DataLoader`` worker has a
            list of its own, which the main process does not see; its warnings are seen.

    Raises:
        FileNotFoundError: If there is no such path.
        ValueError: If the path holds none of the forms, more than one, or shards of several splits.
        CorruptRecordError: While reading, if a sample is damaged or lacks an image or a heatmap. The message names the
            file, and the byte or the sample.
        ImportError: While reading TFRecords, if google-crc32c is not installed.

    Source:
        Linsley et al., "Learning what and where to attend", ICLR 2019; Fel et al., "Harmonizing the object recognition
        strategies of deep neural networks with humans", NeurIPS 2022.

    Example:
        >>> import tempfile
        >>> image, heatmap = np.zeros((8, 8, 3), np.uint8), np.ones((8, 8), np.float32)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/0.npz", image=image, heatmap=heatmap, label=281)
        ...     sample = next(iter(ClickMe(folder)))
        >>> sample.name, sample.label, sample.image.shape, sample.human.shape
        ('0.npz', 281, torch.Size([3, 8, 8]), torch.Size([8, 8]))
    """

    def __init__(self, path: Path | str, on_corrupt: str = "raise") -> None:
        if on_corrupt not in ("raise", "skip"):
            raise ValueError(f"on_corrupt is 'raise' or 'skip', not {on_corrupt!r}.")
        self._form, self._files = _found(Path(path))
        self._skip = on_corrupt == "skip"
        self.skipped: list[tuple[str, str]] = []

    def __iter__(self) -> Iterator[HumanSample]:
        self.skipped = []
        for entry in self._entries():
            sample = self._sample(entry)
            if sample is not None:
                yield sample

    def _sample(self, entry: _Entry) -> HumanSample | None:
        try:
            image, heatmap, label = entry.read()
            return HumanSample(as_image(image), as_human(heatmap), _class(label), entry.name)
        except ValueError as error:
            reason = f"{entry.place}{str(error).rstrip('.')}"
            if not self._skip:
                raise CorruptRecordError(f"{self._files[0].parent / entry.name}: {reason}.") from error
        self.skipped.append((entry.name, reason))
        warnings.warn(f"Skipped {entry.name}: {reason}.", stacklevel=3)
        return None

    def _entries(self) -> Iterator[_Entry]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        files = self._files
        if self._form in _SINGLE or len(files) >= step:
            files, first, step = files[first::step], 0, 1
        for place, path in enumerate(files):
            if self._form in _SINGLE:
                yield _Entry(path.name, "", partial(_SINGLE[self._form], path))
            else:
                yield from _SHARDS[self._form](path, (first - place) % step, step)


_Parts = tuple[Any, Any, Any]


class _Entry(NamedTuple):
    """One sample to be read: ``read`` gives image, heatmap and label, or raises ValueError; ``place`` leads reasons."""

    name: str
    place: str
    read: Callable[[], _Parts]


def _found(path: Path) -> tuple[str, list[Path]]:
    """The form that lies at a path, and its files in order of name."""
    if path.is_dir():
        files = [file for file in path.iterdir() if file.is_file() and not file.name.startswith(".")]
    elif path.exists():
        form = _form(path, sniff=True)
        if not form:
            raise ValueError(f"{path}: not a form of ClickMe (a TFRecord file, or one of {', '.join(_SUFFIXES)}).")
        return form, [path]
    elif path.parent.is_dir() and any(mark in path.name for mark in "*?["):
        files = [file for file in path.parent.glob(path.name) if file.is_file()]
    else:
        raise FileNotFoundError(f"{path}: there is no such file or folder.")
    forms: dict[str, list[Path]] = {}
    for file in sorted(files):
        form = _form(file, sniff=not file.suffix)
        if form:
            forms.setdefault(form, []).append(file)
    if not forms:
        looked = f"looked for *.tfrecords, {', '.join('*' + suffix for suffix in _SUFFIXES)}"
        inside = sorted(p.name for p in path.iterdir() if p.is_dir()) if path.is_dir() else []
        hint = f"; it has the subfolders {', '.join(inside[:5])}" if inside else ""
        raise ValueError(f"{path}: no form of ClickMe here ({looked}){hint}.")
    if len(forms) > 1:
        raise ValueError(
            f"{path}: several forms here ({', '.join(sorted(forms))}); choose with a pattern, as in *.npz."
        )
    ((form, files),) = forms.items()
    splits = {split for file in files for split in _SPLIT.findall(file.stem.lower())}
    if path.is_dir() and form in _SHARDS and len(splits) > 1:
        raise ValueError(
            f"{path}: shards of several splits here ({', '.join(sorted(splits))}); "
            f"choose with a pattern, as in {path / re.sub('[0-9]+', '*', files[-1].stem)}{files[-1].suffix}."
        )
    return form, files


def _form(path: Path, sniff: bool) -> str:
    """The form of a file by its name, or else by its beginning; empty if it is none."""
    if _TFRECORD.search(path.name.lower()):
        return "tfrecord"
    form = _SUFFIXES.get(path.suffix.lower(), "")
    if form or not sniff:
        return form
    with open(path, "rb") as file:
        start = file.read(13)
    fits = len(start) == 13 and int.from_bytes(start[:8], "little") + 16 <= path.stat().st_size
    return "tfrecord" if fits and start[12] == 0x0A else ""


def _tfrecords(path: Path, first: int, step: int) -> Iterator[_Entry]:
    if path.stat().st_size == 0 and first == 0:
        yield _failing(path.name, "the file is empty")
    for frame in frames(path, True, first, step):
        place = f"byte {frame.offset}: "
        if frame.problem:
            yield _failing(f"{path.name}:{frame.number}", frame.problem, place)
        else:
            yield _Entry(f"{path.name}:{frame.number}", place, partial(_example, frame.payload))


def _zip(path: Path, first: int, step: int) -> Iterator[_Entry]:
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
            yield _Entry(f"{path.name}:{member}", "", partial(_member, archive, member))


def _tar(path: Path, first: int, step: int) -> Iterator[_Entry]:
    """Neighbouring members whose names agree up to the first dot are one sample."""
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
                        yield _Entry(f"{path.name}:{key}", "", partial(_webdataset, parts))
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
        yield _Entry(f"{path.name}:{key}", "", partial(_webdataset, parts))
        key = ""
    if problem:
        yield _failing(f"{path.name}:{key}".rstrip(":"), problem, f"byte {end}: ")


def _after_last(path: Path, end: int) -> str:
    """What is wrong with the byte where the last member ends: a whole archive has a block of zeros there.

    Without this look a damaged header would end the archive as if nothing were amiss.
    """
    with open(path, "rb") as file:
        file.seek(end)
        block = file.read(_TAR_BLOCK)
    if len(block) < _TAR_BLOCK:
        return "cut short: the mark that ends a .tar is missing"
    return "a member's header is damaged, so nothing from here on can be read" if any(block) else ""


def _example(payload: bytes) -> _Parts:
    features = parse_example(payload)
    _require(features, "image", "heatmap")
    image, heatmap = (_bytes(features[name], name) for name in ("image", "heatmap"))
    return decoded(image, 3), decoded(heatmap, 1), features.get("label") or None


def _bytes(values: list[bytes] | list[float] | list[int], name: str) -> bytes:
    if len(values) == 1 and isinstance(values[0], bytes):
        return values[0]
    raise ValueError(f"{name} is not one string of bytes")


def _npz(path: Path) -> _Parts:
    return _arrays(path.read_bytes())


def _member(archive: zipfile.ZipFile, name: str) -> _Parts:
    try:
        data = archive.read(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(f"damaged in the .zip ({error})") from error
    return _arrays(data)


def _arrays(data: bytes) -> _Parts:
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise ValueError("not an .npz file, or cut short")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            _require(arrays.files, "image", "heatmap")
            return arrays["image"], arrays["heatmap"], arrays["label"] if "label" in arrays.files else None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, MemoryError) as error:
        raise ValueError(f"the .npz is damaged ({error})") from error


def _pth(path: Path) -> _Parts:
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


def _webdataset(parts: dict[str, bytes]) -> _Parts:
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


def _class(label: Any) -> int | None:
    if label is None:
        return None
    values = np.asarray(label)
    whole = values.size == 1 and values.dtype.kind in "iuf" and float(values.item()).is_integer()
    if not whole or values.item() < 0:
        raise ValueError(f"label is {str(label)[:40]}, not one class number")
    return int(values.item())


def _require(there: Iterable[str], *wanted: str) -> None:
    names = [str(name) for name in there]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ValueError(f"no {' and no '.join(missing)} in it; there is {', '.join(sorted(names)) or 'nothing'}")


def _failing(name: str, reason: str, place: str = "") -> _Entry:
    def read() -> _Parts:
        raise ValueError(reason)

    return _Entry(name, place, read)


def _hidden(member: str) -> bool:
    path = PurePosixPath(member)
    return path.name.startswith(".") or "__MACOSX" in path.parts


def _split(member: str) -> tuple[str, str]:
    path = PurePosixPath(member)
    stem, _, extension = path.name.partition(".")
    return str(path.parent / stem), extension.lower()


_SINGLE: dict[str, Callable[[Path], _Parts]] = {"npz": _npz, "pth": _pth}
_SHARDS: dict[str, Callable[[Path, int, int], Iterator[_Entry]]] = {"tfrecord": _tfrecords, "zip": _zip, "tar": _tar}
