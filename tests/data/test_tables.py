from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captum_astro.data import tables
from captum_astro.data.cifar import read_cifar
from captum_astro.data.files import DataError
from captum_astro.data.tables import labels, parquet_files, read_columns
from captum_astro.data.texts import read_imdb
from tests.training.making import png


def test_rows_of_several_files(tmp_path: Path) -> None:
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for file, start, count in zip(files, (0, 600), (600, 3), strict=True):
        pq.write_table(pa.table({"x": list(range(start, start + count)), "y": ["z"] * count}), file, row_group_size=100)
    values, places = read_columns(files, {"number": ("w", "x")})
    assert values == {"number": list(range(603))}
    assert places == [
        *(f"{files[0]}, row {row}" for row in range(600)),
        *(f"{files[1]}, row {row}" for row in range(3)),
    ]


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([0]), pa.array([1]), pa.array(["a"])], ["label", "label", "text"])
    pq.write_table(table, tmp_path / "imdb_train.parquet")
    with pytest.raises(DataError, match=r"imdb_train\.parquet: 2 columns are named label: which is it\?"):
        read_imdb(tmp_path, "train")


def test_a_repeated_value_is_not_unpacked_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LARGEST", 1 << 24)
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(4096, np.int8)), pa.array(["a" * (1 << 14)]))
    file = tmp_path / "imdb_train.parquet"
    pq.write_table(pa.table({"text": text.cast(pa.string()), "label": [0] * 4096}), file)
    assert file.stat().st_size < 1 << 16
    with pytest.raises(DataError, match=r"imdb_train\.parquet: more than 16 MiB when unpacked"):
        read_imdb(tmp_path, "train")


def test_rows_without_values_are_not_read_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LARGEST", 1 << 24)
    file, count = tmp_path / "train.parquet", 100_000
    pq.write_table(pa.table({"img": pa.nulls(count, pa.binary()), "label": [7] * count}), file)
    assert file.stat().st_size < 10_000
    with pytest.raises(DataError, match=r"train\.parquet: more than 16 MiB when unpacked"):
        read_columns([file], {"img": ("img",), "label": ("label",)})


@pytest.mark.parametrize("label", [-1, 10, 2**62, 1.5, float("nan"), "7", None, True, [1]])
def test_odd_labels(label: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^here: the label is .*, not a whole number from 0 up to 9\.$"):
        labels([label], ["here"], 10)
    rows = {"img": [png(np.zeros((32, 32, 3), np.uint8))], "label": pa.array([label])}
    pq.write_table(pa.table(rows), tmp_path / "cifar10_train.parquet")
    with pytest.raises(DataError, match=r"cifar10_train\.parquet, row 0: the label is"):
        read_cifar(tmp_path, "train")


def test_cifar100_is_not_cifar10(tmp_path: Path) -> None:
    rows = {"img": [png(np.zeros((32, 32, 3), np.uint8))], "label": [1]}
    pq.write_table(pa.table(rows), tmp_path / "cifar10_test.parquet")
    with pytest.raises(DataError, match="no column fine_label or fine_labels, only img, label"):
        read_cifar(tmp_path / "cifar10_test.parquet", "test", 100)


@pytest.mark.timeout(20)
def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "imdb_train.parquet")
    with pytest.raises(DataError, match=r"imdb_train\.parquet: a device, a FIFO or a socket"):
        parquet_files(tmp_path / "imdb_train.parquet", "train", "imdb")
    with pytest.raises(DataError, match="no parquet file of the train split"):
        parquet_files(tmp_path, "train", "imdb")
    with pytest.raises(DataError, match=r"imdb_train\.parquet: a device, a FIFO or a socket"):
        read_columns([tmp_path / "imdb_train.parquet"], {"text": ("text",)})
