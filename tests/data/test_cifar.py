from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from captum_astro.data.cifar import read_cifar
from captum_astro.data.tables import DataError
from tests.training.making import cifar_folder, cifar_parquet, cifar_pixels, png


def test_parquet_and_folders_agree(tmp_path: Path) -> None:
    cifar_parquet(tmp_path, train=4, test=4)
    (tmp_path / "folder").mkdir()
    cifar_folder(tmp_path / "folder")
    pixels, labels = cifar_pixels(4, 0)
    wanted = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    for path in (tmp_path, tmp_path / "cifar10_train.parquet"):
        found = read_cifar(path, "train")
        assert found.images.dtype == torch.uint8
        assert torch.equal(found.images, wanted)
        assert found.labels.tolist() == labels
    for path in (tmp_path / "folder", tmp_path / "folder" / "cifar-10-batches-py"):
        found = read_cifar(path, "train")
        assert len(found) == 20
        assert torch.equal(found.images[:4], wanted)
    assert torch.equal(read_cifar(tmp_path / "cifar10_train.parquet", "test").images[0], torch.from_numpy(
        cifar_pixels(4, 1)[0][0]).permute(2, 0, 1))  # fmt: skip


def test_cifar100(tmp_path: Path) -> None:
    inside = tmp_path / "cifar-100-python"
    inside.mkdir()
    for name in ("train", "test"):
        content = {"data": np.zeros((2, 3072), np.uint8), "fine_labels": [99, 0], "coarse_labels": [1, 1]}
        (inside / name).write_bytes(pickle.dumps(content))
    assert read_cifar(tmp_path, "test", 100).labels.tolist() == [99, 0]
    (tmp_path / "data").mkdir()
    rows = {"img": [png(np.zeros((32, 32, 3), np.uint8))], "fine_label": [99], "coarse_label": [3]}
    pd.DataFrame(rows).to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    for file in inside.iterdir():
        file.unlink()
    assert read_cifar(tmp_path, "train", 100).labels.tolist() == [99]


def test_invalid_options(tmp_path: Path) -> None:
    def fails(message: str, path: Path = tmp_path) -> None:
        with pytest.raises(DataError, match=re.escape(message)):
            read_cifar(path, "train")

    fails("neither cifar-10-batches-py nor parquet files")
    fails("no such file or folder", tmp_path / "nowhere")
    file = tmp_path / "cifar10_train.parquet"
    good = png(np.zeros((32, 32, 3), np.uint8))
    for rows, message in (
        ({"img": [good], "answer": [1]}, "no column label or labels, only img, answer"),
        ({"img": [good, good[:60]], "label": [1, 2]}, "row 1: the image is damaged"),
        ({"img": [good, None], "label": [1, 2]}, "row 1: no encoded image"),
        ({"img": [good, good], "label": [1, 10]}, "row 1: the label is 10, not a whole number from 0 up to 9"),
        ({"img": [png(np.zeros((8, 9, 3), np.uint8))], "label": [1]}, "row 0: an image of 9 x 8 pixels, not 32 x 32"),
    ):
        pd.DataFrame(rows).to_parquet(file)
        fails(message)
    with pytest.raises(DataError, match=r"no parquet file of the test split here, such as cifar10_test\.parquet"):
        read_cifar(tmp_path, "test")
    file.write_bytes(b"PAR1 cut short")
    fails("not a parquet file, or damaged")


def test_damaged_folders(tmp_path: Path) -> None:
    inside = cifar_folder(tmp_path) / "cifar-10-batches-py"
    (inside / "data_batch_3").write_bytes(pickle.dumps({b"data": [1, 2], b"labels": [1]}))
    with pytest.raises(DataError, match=r"data_batch_3: not a batch of CIFAR-10"):
        read_cifar(tmp_path, "train")
    (inside / "data_batch_3").write_bytes(pickle.dumps({b"data": Path, b"labels": [1]}))
    with pytest.raises(DataError, match=r"it asks for pathlib\S*Path"):
        read_cifar(tmp_path, "train")
    (inside / "data_batch_3").unlink()
    with pytest.raises(DataError, match="no such file, though others"):
        read_cifar(tmp_path, "train")
