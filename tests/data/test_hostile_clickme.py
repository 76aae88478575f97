"""Forged files of ClickMe: small ones that announce much, name other files, or hold more than numbers."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from captum_astro.data import _clickme_forms, _example, _tensor_file, archives, tfrecord
from captum_astro.data._example import parse_example
from captum_astro.data.clickme import ClickMe
from captum_astro.data.clickme_samples import ClickMeSamples
from captum_astro.data.files import DataError
from captum_astro.data.npy import from_npy
from captum_astro.data.tfrecord import CorruptRecordError, frames
from tests.data.test_clickme import FORMS, heat, members, npy, npz, pixels, write_tar, write_zip
from tests.data.test_tfrecord import delimited, framed, make_example, varint


def _npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    size = struct.pack("<H" if version[0] == 1 else "<I", len(header) + 1)
    return b"\x93NUMPY" + version + size + header.encode() + b"\n" + data


def _header(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


NPY = {
    "four terabytes": (_npy(_header("(1000000, 1000000)")), "are announced, 0 bytes are there"),
    "beyond 64 bits": (_npy(_header("(4611686018427387904, 4, 4)"), bytes(64)), "are announced, 64 bytes are there"),
    "negative": (_npy(_header("(-1, -4)"), bytes(16)), "are announced, 16 bytes are there"),
    "too few": (_npy(_header("(2, 2)"), bytes(12)), "are announced, 12 bytes are there"),
    "too many": (_npy(_header("(2, 2)"), bytes(20)), "are announced, 20 bytes are there"),
    "objects": (npy(np.array([{}], dtype=object)), "Python objects in it"),
    "objects in a structure": (_npy(_header("(1,)", "[('a', '|O')]"), bytes(8)), "Python objects in it"),
    "structure": (_npy(_header("(1,)", "[('a', '<f4')]"), bytes(4)), "where numbers belong"),
    "texts": (_npy(_header("(1,)", "'<U2'"), bytes(8)), "where numbers belong"),
    "nothing a value": (_npy(_header("(9,)", "'|V0'")), "where numbers belong"),
    "a call": (_npy(_header("print(1)")), "not an .npy file, or damaged"),
    "a number for a shape": (_npy(_header("3")), "not an .npy file, or damaged"),
    "unknown type": (_npy(_header("(3,)", "'harm'")), "not an .npy file, or damaged"),
    "nested": (_npy("(" * 5000 + ")" * 5000), "not an .npy file, or damaged"),
    "long header": (_npy(" " * 100_000, version=b"\x02\x00"), "not an .npy file, or damaged"),
    "another version": (_npy(_header("()"), version=b"\x09\x00"), "not an .npy file, or damaged"),
    "cut short": (npy(heat(0))[:40], "not an .npy file, or damaged"),
    "no file": (b"", "not an .npy file, or damaged"),
}


@pytest.mark.parametrize("kind", NPY)
def test_forged_npy(kind: str, tmp_path: Path) -> None:
    data, reason = NPY[kind]
    with pytest.raises(ValueError, match=reason):
        from_npy(data)
    write_zip(tmp_path / "a.npz", {"image.npy": npy(pixels(0)), "heatmap.npy": data})
    write_tar(tmp_path / "b.tar", {"0": {**members(0), "heatmap.npy": data}})
    for name in ("a.npz", "b.tar"):
        with pytest.raises(CorruptRecordError, match=rf"{name}\S*: .*{reason}"):
            next(iter(ClickMe(tmp_path / name)))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["u1", ">i2", "<f8", "?"])
def test_npy_round_trip(order: Any, kind: str) -> None:
    values = np.array(np.arange(24).reshape(2, 3, 4) % 2, dtype=kind, order=order)
    found = from_npy(npy(values))
    assert found.dtype == values.dtype
    assert np.array_equal(found, values)


def _saved(content: object, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def _packed() -> bytes:
    """A file of torch.save, compressed: its tensor of zeros is a thousandth as large."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(_saved({"image": torch.zeros(3, 999, 999)}))) as source,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as to,
    ):
        for name in source.namelist():
            to.writestr(name, source.read(name))
    return file.getvalue()


_IMAGE = torch.zeros(3, 4, 4, dtype=torch.uint8)

PTH: dict[str, tuple[Callable[[], bytes], str]] = {
    "before 1.6": (lambda: _saved({"image": _IMAGE}, _use_new_zipfile_serialization=False), "PyTorch 1.6 or later"),
    "compressed": (_packed, "a compressed file"),
    "one value repeated": (
        lambda: _saved({"image": _IMAGE, "heatmap": torch.zeros(1).expand(1 << 20, 1 << 20)}),
        r"heatmap has the shape \(1048576, 1048576\), more than 256 MiB",
    ),
    "sparse": (lambda: _saved({"image": _IMAGE, "heatmap": torch.eye(4).to_sparse()}), "of another kind"),
    "meta": (lambda: _saved({"image": _IMAGE, "heatmap": torch.zeros(4, 4, device="meta")}), "of another kind"),
    "complex": (lambda: _saved({"image": _IMAGE, "heatmap": torch.zeros(4, 4) + 0j}), "the heatmap is made of numbers"),
}


@pytest.mark.parametrize("kind", PTH)
def test_forged_pth(kind: str, tmp_path: Path) -> None:
    make, reason = PTH[kind]
    (tmp_path / "a.pth").write_bytes(make())
    with pytest.raises(CorruptRecordError, match=rf"a\.pth: .*{reason}"):
        next(iter(ClickMe(tmp_path / "a.pth")))


def test_nothing_large_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (archives, _clickme_forms, tfrecord, _tensor_file):
        monkeypatch.setattr(module, "LARGEST_ARRAY", 1 << 20)
    zeros = np.zeros((1 << 13, 1 << 11), np.uint8)  # 16 MiB
    file = io.BytesIO()
    np.savez_compressed(file, image=pixels(0), heatmap=zeros)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.npz", file.getvalue())
        archive.writestr("1.npz", bytes(1 << 24))
        archive.writestr("2.npz", npz(2))
    write_tar(tmp_path / "b.tar", {"0": {**members(0), "heatmap.npy": bytes(1 << 21)}, "1": members(1)})
    (tmp_path / "c.tfrecords").write_bytes(framed(make_example({"label": [1]})) + framed(bytes(1 << 21)))
    _tar_of_zeros(tmp_path / "d.tar")
    for name, reasons in (
        ("a.zip", ["16777344 bytes when unpacked, more than 1 MiB", "16777216 bytes when unpacked"]),
        ("b.tar", ["heatmap.npy: sparse, or more than 1 MiB"]),
        ("c.tfrecords", ["no image", "2097152 bytes, more than 1 MiB, so nothing from here on is read"]),
        ("d.tar", ["jpg: sparse, or more than 1 MiB"]),
    ):
        data = ClickMe(tmp_path / name, "skip")
        tracemalloc.start()
        with pytest.warns(UserWarning, match="Skipped"):
            kept = [sample.label for sample in data]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert kept == {"a.zip": [2], "b.tar": [1], "c.tfrecords": [], "d.tar": [1]}[name]
        assert len(data.skipped) == len(reasons)
        assert all(reason in found for reason, (_, found) in zip(reasons, data.skipped, strict=True))
        assert peak < 4 << 20


def _tar_of_zeros(path: Path) -> None:
    """A sparse member of a terabyte, in no bytes, and a sample after it."""
    info = tarfile.TarInfo("0.jpg")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = struct.pack(">I", 0x80000000) + (1 << 40).to_bytes(8, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    write_tar(path, {"1": members(1)})
    path.write_bytes(bytes(header) + path.read_bytes())


def test_a_tar_of_links_and_devices_reads_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind in (("0.jpg", tarfile.SYMTYPE), ("0.heatmap.npy", tarfile.LNKTYPE), ("0.cls", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(tmp_path / "secret")
            archive.addfile(info)
        for extension, data in members(1).items():
            info = tarfile.TarInfo(f"/../..{tmp_path}/1.{extension}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    write_zip(tmp_path / "b.zip", {f"/../..{tmp_path}/1.npz": npz(1)})
    before = sorted(tmp_path.rglob("*"))
    for name in ("a.tar", "b.zip"):
        assert [sample.label for sample in ClickMe(tmp_path / name)] == [1]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("packed", "single"),
    [
        (delimited(3, delimited(1, b"\x01" * 9)), delimited(3, b"\x08\x01" * 9)),
        (delimited(2, delimited(1, bytes(36))), delimited(2, b"\x0d\0\0\0\0" * 9)),
        (delimited(1, b"\x0a\x00" * 9), delimited(1, b"\x0a\x00" * 9)),
    ],
)
def test_long_lists(packed: bytes, single: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for feature in (packed, single):
        example = delimited(1, delimited(1, delimited(1, b"a") + delimited(2, feature)))
        monkeypatch.setattr(_example, "_MOST", 9)
        assert len(parse_example(example)["a"]) == 9
        monkeypatch.setattr(_example, "_MOST", 8)
        with pytest.raises(ValueError, match="more than 8 values"):
            parse_example(example)
    with pytest.raises(ValueError, match="more than 8 values"):
        parse_example(delimited(1, b"".join(delimited(1, delimited(1, varint(i))) for i in range(9))))


@pytest.mark.parametrize("label", [-1, 2**31, 2**62, 1.5, float("nan"), float("inf"), 1e300, "7", [1, 2]])
def test_odd_labels(label: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", image=pixels(0), heatmap=heat(0), label=label)
    with pytest.raises(CorruptRecordError, match=r"a\.npz: (label is .*, not one class number|.*where numbers belong)"):
        next(iter(ClickMe(tmp_path)))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["a", "a.npz", "a.zip", "a.pth", "a.tar", "a.tfrecords"])
def test_a_fifo_is_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match=rf"{name}: a device, a FIFO or a socket"):
        ClickMe(tmp_path / name)
    with pytest.raises(DataError, match=rf"{name}: a device, a FIFO or a socket"):
        next(frames(tmp_path / name))
    FORMS["npz"][0](tmp_path)
    assert len(ClickMeSamples(tmp_path)) == 12
