from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from captum_astro.data import hdf5
from captum_astro.data.files import DataError
from captum_astro.data.imagenet_segmentation import ImageNetSegmentation
from tests.data.test_imagenet_segmentation import _some, _written

SHAPE = (3, 9, 5)  # of the first image, as stored
SECRET = b"the secret of another file" * 10


def _point(file: h5py.File, target: h5py.Dataset) -> None:
    """Let the first image be a dataset."""
    file["value/img"][0, 0] = target.ref


def _external(file: h5py.File, folder: Path) -> None:
    _point(file, file.create_dataset("x", SHAPE, "u1", external=[(str(folder / "secret"), 0, h5py.h5f.UNLIMITED)]))


def _external_column(file: h5py.File, folder: Path) -> None:
    del file["value/img"]
    external = [(str(folder / "secret"), 0, h5py.h5f.UNLIMITED)]
    file["value"].create_dataset("img", (2, 1), h5py.ref_dtype, external=external)


def _virtual(file: h5py.File, folder: Path) -> None:
    with h5py.File(folder / "other.h5", "w") as other:
        other["x"] = np.full(SHAPE, 77, np.uint8)
    layout = h5py.VirtualLayout(SHAPE, "u1")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "x", SHAPE)
    _point(file, file.create_virtual_dataset("x", layout))


def _external_link(file: h5py.File, folder: Path) -> None:
    file.copy("value", "kept")
    with h5py.File(folder / "other.h5", "w") as other:
        file.copy("value", other)
    del file["value"]
    file["value"] = h5py.ExternalLink(str(folder / "other.h5"), "/value")


def _soft_link(file: h5py.File, folder: Path) -> None:
    file["kept"] = file["value/img"]
    del file["value/img"]
    file["value/img"] = h5py.SoftLink("/kept")


def _names(file: h5py.File, folder: Path) -> None:
    del file["value/img"]
    file["value"].create_dataset("img", data=[["/value"], ["/value"]], dtype=h5py.string_dtype())


def _regions(file: h5py.File, folder: Path) -> None:
    del file["value/img"]
    column = file["value"].create_dataset("img", (2, 1), h5py.regionref_dtype)
    column[0, 0] = file["value/gt"].regionref[:]


def _group(file: h5py.File, folder: Path) -> None:
    _point(file, file.create_group("x"))


def _nothing(file: h5py.File, folder: Path) -> None:
    _point(file, file.create_dataset("x", data=h5py.Empty("u1")))


def _null(file: h5py.File, folder: Path) -> None:
    file["value/img"][0, 0] = h5py.Reference()


def _filter(file: h5py.File, folder: Path) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk(SHAPE)
    properties.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (1,))  # Blosc, which HDF5 would load as a library
    space = h5py.h5s.create_simple(SHAPE)
    _point(file, h5py.Dataset(h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_UINT8, space, properties)))


def _huge(file: h5py.File, folder: Path) -> None:
    _point(file, file.create_dataset("x", (3, 1 << 20, 1 << 20), "u1", chunks=(1, 64, 64), compression="gzip"))


def _huge_chunk(file: h5py.File, folder: Path) -> None:
    _point(file, file.create_dataset("x", SHAPE, "u1", chunks=(1, 1 << 15, 1 << 14), maxshape=(None,) * 3))


def _structures(file: h5py.File, folder: Path) -> None:
    _point(file, file.create_dataset("x", SHAPE, [("a", "u1"), ("b", "f8")]))


FORGED: dict[str, tuple[Callable[[h5py.File, Path], None], str]] = {
    "external storage": (_external, "its values are in another file"),
    "references in external storage": (_external_column, "its values are in another file"),
    "virtual storage": (_virtual, "its values are in another file"),
    "external link": (_external_link, "value is a link, which is not followed"),
    "soft link": (_soft_link, "img is a link, which is not followed"),
    "names for references": (_names, "where references belong"),
    "region references": (_regions, "where references belong"),
    "reference to a group": (_group, "a group without values"),
    "no values": (_nothing, "a dataset without values"),
    "null reference": (_null, "image 0: not in the form"),
    "filter of a library": (_filter, "it needs a filter other than deflate"),
    "huge shape": (_huge, r"values of uint8 are more than 256 MiB"),
    "huge chunk": (_huge_chunk, r"values of uint8 are more than 256 MiB"),
    "structures": (_structures, "where numbers belong"),
}
WHOLE = {"references in external storage", "external link", "soft link", "names for references", "region references"}


@pytest.mark.parametrize("kind", FORGED)
def test_forged(kind: str, tmp_path: Path) -> None:
    change, reason = FORGED[kind]
    (tmp_path / "secret").write_bytes(SECRET)
    path = _written(tmp_path / "a.mat", *_some(2))
    with h5py.File(path, "r+") as file:
        change(file, tmp_path)
    with pytest.raises(DataError, match=rf"a\.mat: .*{reason}"):
        ImageNetSegmentation(path)[0]
    if kind not in WHOLE:
        assert ImageNetSegmentation(path)[1].name == "1"


def test_plain_storage_is_read(tmp_path: Path) -> None:
    values = np.arange(60, dtype=np.uint16).reshape(3, 4, 5)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", data=values, compression="gzip", shuffle=True, fletcher32=True)
        file.create_dataset("b", data=values)
        for name in "ab":
            assert np.array_equal(hdf5.array(hdf5.member(file, name)), values)
        with pytest.raises(ValueError, match="there is no /c"):
            hdf5.member(file, "c")


def test_texts(tmp_path: Path) -> None:
    path = _written(tmp_path / "a.mat", *_some(2), id=["a" * 5000, "b"])
    data = ImageNetSegmentation(path)
    with pytest.raises(DataError, match=r"image 0: .* id is a text of 5000 characters"):
        data[0]
    assert data[1].name == "1 b"
