"""ClickMe, human attention maps from clicks on what makes an image recognisable, in its common file formats."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from captum_astro.caller import warn
from captum_astro.data._clickme_forms import SHARDS, SINGLE, Entry
from captum_astro.data.arrays import as_human, as_image
from captum_astro.data.files import regular_file
from captum_astro.data.human import HumanSample
from captum_astro.data.tfrecord import CorruptRecordError

_CLASSES = 1 << 31  # a class number beyond is none
_SUFFIXES = {".npz": "npz", ".zip": "zip", ".pth": "pth", ".pt": "pth", ".tar": "tar"}
_SPLIT = re.compile(r"(?<![a-z])(trainval|train|val|test)(?![a-z])")
_TFRECORD = re.compile(r"\.tfrecords?(-[0-9]+-of-[0-9]+)?$")


class ClickMe(IterableDataset[HumanSample]):
    """ClickMe samples, one at a time, from any of the formats in which the dataset is distributed.

    ====================  ====================================================================================
    TFRecord              ``image`` and ``heatmap`` as JPEG (the Harmonization release), or as raw float32 of
                          3 x side x side in 0 to 255 and side x side (ClickMe 1.0); ``label``
    NPZ                   a folder of ``.npz``, or the ``.zip`` as downloaded: ``image``, ``heatmap``, ``label``
    PTH                   a folder of ``.pth``: a dictionary of the tensors ``image``, ``heatmap``, ``label``
    WebDataset            ``.tar`` shards with ``jpg``, ``heatmap.npy``, ``cls``
    ====================  ====================================================================================

    Samples come in the order of the file names, and inside a file in its own order (inside a ``.zip`` by name). In a
    ``DataLoader`` each worker takes its own files, or every n-th sample if there are fewer shards than workers, so that
    none is repeated. A sample without a label has ``label=None``. Heatmaps of uint8 are divided by 255, float heatmaps
    are unchanged, and any size is allowed: ``prepare_heatmap`` accepts all of them. ``name`` is the file, and for a
    shard also the number or name of the sample in it: ``val-3.tfrecords:17``.

    Nothing but tensors is unpickled: ``.npz`` files with objects are rejected, and so are ``.pth`` files with more than
    tensors, or from before PyTorch 1.6.

    Args:
        path: A file, a folder (its own files, not those of its subfolders), or a pattern for the files of a folder, as
            in ``"click-me/clickme-val-*.tar"``.
        on_corrupt: ``"raise"``, or ``"skip"`` to skip what cannot be read, with a warning for each.

    Attributes:
        skipped: What the latest pass has skipped: pairs of a name and a reason. Every ``DataLoader`` worker has its own
            list, which the main process does not see; its warnings are visible.

    Raises:
        FileNotFoundError: If there is no such path.
        ValueError: If the path has none of the formats, more than one, or shards of several splits.
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
            raise ValueError(f"on_corrupt must be 'raise' or 'skip', not {on_corrupt!r}.")
        self._form, self._files = _found(Path(path))
        self._skip = on_corrupt == "skip"
        self.skipped: list[tuple[str, str]] = []

    def __iter__(self) -> Iterator[HumanSample]:
        self.skipped = []
        for entry in self._entries():
            sample = self.sample(entry)
            if sample is not None:
                yield sample

    def entries(self) -> Iterator[Entry]:
        """All samples, in order and not yet read, regardless of the worker."""
        return self._stepped(0, 1)

    def sample(self, entry: Entry) -> HumanSample | None:
        """Read a sample; None if it is damaged and skipped.

        Raises:
            CorruptRecordError: If it is damaged, unless ``on_corrupt`` is ``"skip"``.
        """
        try:
            image, heatmap, label = entry.read()
            return HumanSample(as_image(image), as_human(heatmap), _class(label), entry.name)
        except (ValueError, OSError) as error:
            reason = f"{entry.place}{str(error).rstrip('.')}"
            if not self._skip:
                raise CorruptRecordError(f"{self._files[0].parent / entry.name}: {reason}.") from error
        self.skipped.append((entry.name, reason))
        warn(f"Skipped {entry.name}: {reason}.")
        return None

    def _entries(self) -> Iterator[Entry]:
        worker = get_worker_info()
        return self._stepped(worker.id, worker.num_workers) if worker else self.entries()

    def _stepped(self, first: int, step: int) -> Iterator[Entry]:
        files = self._files
        if self._form in SINGLE or len(files) >= step:
            files, first, step = files[first::step], 0, 1
        for place, path in enumerate(files):
            if self._form in SINGLE:
                yield Entry(path.name, "", partial(SINGLE[self._form], path))
            else:
                yield from SHARDS[self._form](path, (first - place) % step, step)


def _found(path: Path) -> tuple[str, list[Path]]:
    """The format found at a path, and its files in order of name."""
    if path.is_dir():
        files = [file for file in path.iterdir() if file.is_file() and not file.name.startswith(".")]
    elif path.exists():
        path = regular_file(path)
        form = _form(path, sniff=True)
        if not form:
            raise ValueError(f"{path}: not a ClickMe format (a TFRecord file, or one of {', '.join(_SUFFIXES)}).")
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
        raise ValueError(f"{path}: no ClickMe format here ({looked}){hint}.")
    if len(forms) > 1:
        raise ValueError(
            f"{path}: several formats here ({', '.join(sorted(forms))}); choose with a pattern, such as *.npz."
        )
    ((form, files),) = forms.items()
    splits = {split for file in files for split in _SPLIT.findall(file.stem.lower())}
    if path.is_dir() and form in SHARDS and len(splits) > 1:
        raise ValueError(
            f"{path}: shards of several splits here ({', '.join(sorted(splits))}); "
            f"choose with a pattern, such as {path / re.sub('[0-9]+', '*', files[-1].stem)}{files[-1].suffix}."
        )
    return form, files


def _form(path: Path, sniff: bool) -> str:
    """The format of a file by its name, otherwise by its first bytes; empty if it is none."""
    if _TFRECORD.search(path.name.lower()):
        return "tfrecord"
    form = _SUFFIXES.get(path.suffix.lower(), "")
    if form or not sniff:
        return form
    with open(path, "rb") as file:
        start = file.read(13)
    fits = len(start) == 13 and int.from_bytes(start[:8], "little") + 16 <= path.stat().st_size
    return "tfrecord" if fits and start[12] == 0x0A else ""


def _class(label: Any) -> int | None:
    if label is None:
        return None
    values = np.asarray(label)
    whole = values.size == 1 and values.dtype.kind in "iuf" and float(values.item()).is_integer()
    if not whole or not 0 <= values.item() < _CLASSES:
        raise ValueError(f"label is {str(label)[:40]}, not one class number")
    return int(values.item())
