"""The samples inside one file of each format: none is lost, none read before it is asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from captum_astro.data._clickme_forms import SHARDS, SINGLE, Entry
from tests.data.test_clickme import encoded, harmonization, heat, members, npy, npz, pixels, pth, write_tar, write_zip
from tests.data.test_tfrecord import write_records

COUNT = 7


def _tfrecords(path: Path) -> None:
    write_records(path, map(harmonization, range(COUNT)))


def _zip(path: Path) -> None:
    samples = {f"{i}.npz": npz(i) for i in reversed(range(COUNT))}
    write_zip(path, {**samples, "readme.txt": b"", "__MACOSX/._0.npz": b"x"})


def _tar(path: Path) -> None:
    write_tar(path, {f"./{i}": members(i) for i in range(COUNT)})


WRITERS: dict[str, Callable[[Path], None]] = {"tfrecord": _tfrecords, "zip": _zip, "tar": _tar}


def _read(form: str, path: Path, first: int = 0, step: int = 1) -> list[tuple[str, int]]:
    """Names and labels; entries are read at once, as the archive closes with them."""
    return [(entry.name, int(np.ravel(entry.read()[2])[0])) for entry in SHARDS[form](path, first, step)]


@pytest.mark.parametrize("form", SHARDS)
def test_every_sample_has_its_name(form: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    WRITERS[form](path)
    suffix = ".npz" if form == "zip" else ""
    assert _read(form, path) == [(f"a:{i}{suffix}", i) for i in range(COUNT)]


@pytest.mark.parametrize("step", [2, 3, COUNT, COUNT + 2])
@pytest.mark.parametrize("form", SHARDS)
def test_workers_share_a_file_and_repeat_nothing(form: str, step: int, tmp_path: Path) -> None:
    path = tmp_path / "a"
    WRITERS[form](path)
    parts = [_read(form, path, first, step) for first in range(step)]
    assert [[label for _, label in part] for part in parts] == [[*range(first, COUNT, step)] for first in range(step)]


@pytest.mark.parametrize(("form", "content"), [("npz", npz), ("pth", pth)])
def test_a_file_of_one_sample(form: str, content: Callable[[int], bytes], tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(content(3))
    image, heatmap, label = SINGLE[form](path)
    assert int(np.ravel(label)[0]) == 3
    picture = image if form == "npz" else image.transpose(1, 2, 0)
    assert np.array_equal(picture, pixels(3))
    scale = 1 if form == "npz" else 255
    assert np.allclose(np.squeeze(heatmap) / scale, heat(3), atol=1e-6)


def _fails(entries: list[Entry], reason: str) -> None:
    [entry] = entries
    with pytest.raises(ValueError, match=re.escape(reason)):
        entry.read()


@pytest.mark.parametrize(
    ("form", "data", "reason"),
    [
        ("tfrecord", b"", "the file is empty"), ("tar", b"", "not a .tar file, or damaged, or cut short"),
        ("tar", bytes(10240), "no sample in this .tar"), ("zip", b"no zip", "not a"),
    ],
)  # fmt: skip
def test_a_file_without_samples_fails_once(form: str, data: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(data)
    _fails(list(SHARDS[form](path, 0, 2)), reason)
    assert not list(SHARDS[form](path, 1, 2))  # the other worker says nothing


def test_a_zip_without_arrays(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", {"readme.txt": b""})
    _fails(list(SHARDS["zip"](tmp_path / "a.zip", 0, 1)), "no .npz in this .zip")


def test_a_tar_that_is_cut_short_keeps_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    offsets = write_tar(path, {str(i): members(i) for i in range(3)})
    path.write_bytes(path.read_bytes()[: offsets[-1] + 512])  # the last header is there, its data are not
    found = list(SHARDS["tar"](path, 0, 1))
    assert [entry.name for entry in found][:2] == ["a:0", "a:1"]
    assert [int(entry.read()[2]) for entry in found[:2]] == [0, 1]
    with pytest.raises(ValueError, match="cut short"):
        found[-1].read()


WITHOUT: dict[str, tuple[dict[str, Any], str]] = {
    "no picture": ({"heatmap.npy": npy(heat(0)), "cls": b"1"}, "no jpg in it; there is cls, heatmap.npy"),
    "no heatmap": ({"png": encoded(pixels(0), "PNG"), "cls": b"1"}, "no heatmap.npy in it; there is cls, png"),
    "a word for a class": ({**members(0), "cls": b"bird"}, "cls is 'bird', not a class number"),
}


@pytest.mark.parametrize("kind", WITHOUT)
def test_what_a_sample_lacks_is_named(kind: str, tmp_path: Path) -> None:
    parts, reason = WITHOUT[kind]
    write_tar(tmp_path / "a", {"0": parts})
    _fails(list(SHARDS["tar"](tmp_path / "a", 0, 1)), reason)


def test_a_sample_may_lack_its_label(tmp_path: Path) -> None:
    write_tar(tmp_path / "a", {"0": {name: data for name, data in members(0).items() if name != "cls"}})
    [entry] = SHARDS["tar"](tmp_path / "a", 0, 1)
    assert entry.read()[2] is None
