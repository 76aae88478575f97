from __future__ import annotations

import pickle
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from captum_astro.data.imagenet_segmentation import ImageNetSegmentation
from captum_astro.data.tables import DataError


def _written(file: Path, images: list[np.ndarray], masks: list[np.ndarray], **fields: list[str]) -> Path:
    """As in MATLAB 7.3: columns of references, transposed arrays, strings as numbers."""
    with h5py.File(file, "w") as to:
        kept = to.create_group("#refs#")
        value = to.create_group("value")
        number = 0

        def kept_as(array: Any, **kwargs: Any) -> h5py.Reference:
            nonlocal number
            number += 1
            return kept.create_dataset(str(number), data=array, **kwargs).ref

        def column(name: str, refs: list[h5py.Reference]) -> None:
            value.create_dataset(name, data=np.array(refs, dtype=h5py.ref_dtype)[:, None], dtype=h5py.ref_dtype)

        column("img", [kept_as(image.T) for image in images])
        cells = [kept_as(np.array([[kept_as(mask.T)]], dtype=h5py.ref_dtype), dtype=h5py.ref_dtype) for mask in masks]
        column("gt", cells)
        for name, texts in fields.items():
            column(name, [kept_as(np.array([[ord(c)] for c in text], dtype=np.uint16)) for text in texts])
    return file


def _some(count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    random = np.random.default_rng(0)
    sizes = [(5 + 2 * i, 9 + i) for i in range(count)]
    images = [random.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    return images, [random.integers(0, 2, size).astype(np.uint8) for size in sizes]


def test_matches_the_reference_loader(tmp_path: Path) -> None:
    images, masks = _some(3)
    masks[1][0, :3] = (2, 255, 1)
    file = _written(tmp_path / "gtsegs_ijcv.mat", images, masks)
    data = ImageNetSegmentation(file)
    assert len(data) == 3
    with h5py.File(file) as f:
        for index in (2, 0, 1):
            sample = data[index]
            assert np.array_equal(np.array(f[f["/value/img"][index, 0]]).transpose(2, 1, 0), images[index])
            target = np.array(f[f[f["/value/gt"][index, 0]][0, 0]]).transpose(1, 0)
            assert np.array_equal(sample.image.permute(1, 2, 0), images[index])
            assert sample.image.is_contiguous()
            assert torch.equal(sample.mask == 1, torch.from_numpy(target == 1))
            assert torch.equal(sample.mask == -1, torch.from_numpy(target > 1))
            assert (sample.label, sample.human, sample.name) == (None, None, str(index))
    assert data[1].mask[0, :3].tolist() == [-1, -1, 1]
    assert pickle.loads(pickle.dumps(data))[1].name == "1"
    assert [s.name for s in DataLoader(data, batch_size=None, num_workers=2)] == ["0", "1", "2"]


def test_classes_and_names(tmp_path: Path) -> None:
    fields = {"target": ["n02123045", "n00001740"], "id": ["n02123045_12", "n00001740_3"]}
    data = ImageNetSegmentation(_written(tmp_path / "a.mat", *_some(2), **fields))
    assert [(s.label, s.name) for s in data] == [(281, "0 n02123045_12"), (None, "1 n00001740_3")]


def test_grey(tmp_path: Path) -> None:
    images, masks = _some(1)
    images[0] = images[0][..., 0]
    sample = ImageNetSegmentation(_written(tmp_path / "a.mat", images, masks))[0]
    assert all(np.array_equal(channel, images[0]) for channel in sample.image)


def test_invalid_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        ImageNetSegmentation(tmp_path / "none.mat")
    (tmp_path / "text.mat").write_text("text")
    with pytest.raises(DataError, match=r"text\.mat: not in the form of gtsegs_ijcv\.mat"):
        ImageNetSegmentation(tmp_path / "text.mat")
    with h5py.File(tmp_path / "other.mat", "w") as file:
        file["value/img"] = np.zeros((2, 1))
    with pytest.raises(DataError, match=r"other\.mat: not in the form"):
        ImageNetSegmentation(tmp_path / "other.mat")
    images, masks = _some(3)
    masks[1] = masks[1][1:]
    images[2] = images[2][..., :2]
    data = ImageNetSegmentation(_written(tmp_path / "a.mat", images, masks))
    assert data[0].name == "0"
    with pytest.raises(DataError, match=r"a\.mat: image 1: pixels of \(7, 10\), a mask of \(6, 10\)"):
        data[1]
    with pytest.raises(DataError, match=r"a\.mat: image 2: not in the form .* an image is stored as \(3, W, H\)"):
        data[2]
    with pytest.raises(IndexError, match="There are 3 images"):
        data[3]
    monkeypatch.setitem(sys.modules, "h5py", None)  # as if it were not installed
    with pytest.raises(ImportError, match=r'pip install "captum-astro\[segmentation\]"'):
        data[0]
