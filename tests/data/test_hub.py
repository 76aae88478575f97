"""The Hub's Parquet files: which files are a split, what their rows are, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from captum_astro.data import tables
from captum_astro.data.files import DataError
from captum_astro.data.hub import HubImages
from captum_astro.data.image_error import ImageError
from captum_astro.data.specs import samples
from captum_astro.extras import MissingExtraError
from tests.data.fuzzing import UPRIGHT
from tests.training.making import png

NAMES = ["cat", "dog", "hen"]
datasets_only = pytest.mark.skipif(
    importlib.util.find_spec("datasets") is None, reason="the Hub's library, datasets, is not installed"
)


def pixels(number: int) -> np.ndarray:
    return np.full((4, 6, 3), 10 * number, np.uint8)


def hub_table(numbers: range, names: list[str] | None = NAMES, labels: list[Any] | None = None) -> pa.Table:
    """Rows as the Hub writes them: image 3 is filled with 30, and its label is 3 % 3."""
    cells = [{"bytes": png(pixels(number)), "path": f"{number}.png"} for number in numbers]
    labels = [number % 3 for number in numbers] if labels is None else labels
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    table = pa.table({"image": cells, "label": pa.array(labels, pa.int64())})
    return table.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})} if names else None
    )


def hub_folder(folder: Path, splits: dict[str, list[range]], rows: int = 2) -> Path:
    """``data/SPLIT-00000-of-00002.parquet`` and so on, in row groups of ``rows``."""
    (folder / "data").mkdir()
    for split, parts in splits.items():
        for number, part in enumerate(parts):
            file = folder / "data" / f"{split}-{number:05}-of-{len(parts):05}.parquet"
            pq.write_table(hub_table(part), file, row_group_size=rows)
    return folder


def values(data: Any) -> list[tuple[str, int | None, int]]:
    return [(s.name, s.label, int(s.image.unique())) for s in (data[index] for index in range(len(data)))]


def test_rows_of_several_files_in_any_order(tmp_path: Path) -> None:
    data = samples(f"hf:{hub_folder(tmp_path, {'train': [range(5), range(5, 7), range(7, 12)]})}")
    wanted = [(f"train {i}", i % 3, 10 * i) for i in range(12)]
    assert values(data) == wanted
    assert [values([data[i]])[0] for i in (11, 0, 6, 4, 5)] == [wanted[i] for i in (11, 0, 6, 4, 5)]
    assert data[0].image.dtype == torch.uint8
    assert data[0].image.shape == (3, 4, 6)
    assert data.class_names == NAMES
    assert [sample.name for sample in samples(f"hf:{tmp_path}", limit=2)] == ["train 0", "train 1"]


@pytest.mark.parametrize(
    ("splits", "spec", "name"),
    [
        (["train", "validation", "test"], "", "validation"),
        (["train", "test"], "", "test"),
        (["train"], "", "train"),
        (["train", "test"], ":train", "train"),
        (["train", "train.clean"], ":train.clean", "train.clean"),
    ],
)
def test_splits(splits: list[str], spec: str, name: str, tmp_path: Path) -> None:
    hub_folder(tmp_path, {split: [range(i, i + 1)] for i, split in enumerate(splits)})
    assert values(samples(f"hf:{tmp_path}{spec}")) == [(f"{name} 0", splits.index(name), 10 * splits.index(name))]


@pytest.mark.parametrize("name", ["train.parquet", "train-00000-of-00003.parquet"])
@pytest.mark.parametrize("part", ["", "/{}"], ids=["folder", "file"])
def test_places_of_files(name: str, part: str, tmp_path: Path) -> None:
    place = tmp_path / "with:colon"
    place.mkdir()
    pq.write_table(hub_table(range(2)), place / name)
    spec = f"hf:{place}{part.format(name)}"
    if "of-00003" in name and not part:  # part of a split, which is not named
        with pytest.raises(DataError, match=rf"'train' is not complete.*{name}.*or name one file: hf:/.*{name}"):
            samples(spec)
        return
    assert len(samples(spec)) == len(samples(f"{spec}:train")) == 2


def test_a_limit_is_spread_over_sorted_classes(tmp_path: Path) -> None:
    pq.write_table(hub_table(range(6), labels=[0, 0, 1, 1, 2, 2]), tmp_path / "test.parquet")
    assert [sample.label for sample in samples(f"hf:{tmp_path}", limit=3)] == [0, 1, 2]
    pq.write_table(hub_table(range(3), None, [-1, None, 9]), tmp_path / "test.parquet")
    data = HubImages(tmp_path)
    assert [data[i].label for i in range(3)] == [None, None, 9]
    assert data.class_names is None
    assert not data.by_class


@pytest.mark.parametrize("turn", UPRIGHT)
def test_photographs_are_turned_as_datasets_does(turn: int, tmp_path: Path) -> None:
    picture = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(picture).save(tmp_path / "a.png", exif=exif)
    table = pa.table({"image": [{"bytes": (tmp_path / "a.png").read_bytes(), "path": None}], "label": [0]})
    pq.write_table(table, tmp_path / "test.parquet")
    assert np.array_equal(HubImages(tmp_path)[0].image.permute(1, 2, 0), UPRIGHT[turn](picture))


def _altered(table: pa.Table, **columns: Any) -> pa.Table:
    for name, column in columns.items():
        at = table.schema.get_field_index(name)
        table = table.remove_column(at) if column is None else table.set_column(at, name, column)
    return table


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (_altered(hub_table(range(2)), label=None), "no column label or labels or fine_label, only image"),
        (_altered(hub_table(range(2)), image=None), "no column image or img, only label"),
        (_altered(hub_table(range(2)), image=pa.array(["a", "b"])), "image is string, not a struct of bytes and path"),
        (_altered(hub_table(range(2)), label=pa.array([0.0, 1.0])), "the labels are double, not whole numbers"),
        (hub_table(range(2), labels=[0, 3]), "row 1: the label is 3, not a whole number from 0 up to 2"),
        (hub_table(range(2), None, [0, -2]), "row 1: the label is -2, not a whole number from 0"),
        (hub_table(range(2), names=[1, 2]), "the class names in its metadata are not a list of names"),
        (hub_table(range(2)).replace_schema_metadata({"huggingface": "{"}), "metadata under 'huggingface' is damaged"),
        (hub_table(range(2)).replace_schema_metadata({"huggingface": "{}"}), "metadata under 'huggingface' is damaged"),
        (hub_table(range(2)).slice(0, 0), "there are no rows"),
    ],
)
def test_refused_files(table: pa.Table, message: str, tmp_path: Path) -> None:
    pq.write_table(table, tmp_path / "test.parquet")
    with pytest.raises(DataError, match=rf"test\.parquet.*{message}"):
        samples(f"hf:{tmp_path}")


def test_refused_places(tmp_path: Path) -> None:
    def refused(place: Path | str, message: str) -> None:
        with pytest.raises(DataError, match=message):
            samples(f"hf:{place}")

    refused(tmp_path / "nowhere", "nowhere: there is no such file or folder, and it is no name on the Hub")
    refused(tmp_path, r"no parquet files in data/ or here, such as data/train-00000-of-00001\.parquet")
    hub_folder(tmp_path, {"a": [range(1)], "b": [range(1)] * 3})
    refused(tmp_path, rf"several splits, a, b\. Name one, as in hf:{tmp_path}:a")
    refused(f"{tmp_path}:train", "no split 'train', only a, b")
    (tmp_path / "data" / "b-00001-of-00003.parquet").unlink()
    refused(f"{tmp_path}:b", "the split 'b' is not complete, or there twice: b-00000-of-00003")
    (tmp_path / "data" / "b-00001-of-00003.parquet").write_bytes(b"PAR1 cut short")
    refused(f"{tmp_path}:b", r"b-00001-of-00003\.parquet: not a parquet file, or damaged")
    pq.write_table(hub_table(range(1)), tmp_path / "data" / "a.parquet")
    refused(tmp_path, "the split 'a' is not complete, or there twice")
    (tmp_path / "data" / "a.parquet").rename(tmp_path / "data" / "no split.parquet")
    refused(tmp_path, r"no split\.parquet: the name says no split\. Call it")


def test_a_damaged_image_costs_its_own_sample(tmp_path: Path) -> None:
    table = hub_table(range(3))
    cells = table["image"].to_pylist()
    cells[1]["bytes"] = cells[1]["bytes"][:50]
    cells[2]["bytes"] = None  # and the path, which is anyone's, is not opened
    pq.write_table(_altered(table, image=pa.array(cells)), tmp_path / "test.parquet")
    data = samples(f"hf:{tmp_path}")
    assert data[0].image.shape == (3, 4, 6)
    for row, message in ((1, "the image is damaged"), (2, "no encoded image but NoneType")):
        with pytest.raises(ImageError, match=rf"test\.parquet, row {row}: {message}"):
            data[row]


def test_one_row_group_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    cells = [{"bytes": png(noise), "path": None}] * 8
    monkeypatch.setattr(tables, "LARGEST", 20_000)  # of which an image takes 5000
    for rows in (2, 8):
        pq.write_table(pa.table({"image": cells, "label": [0] * 8}), tmp_path / "test.parquet", row_group_size=rows)
        data = samples(f"hf:{tmp_path}")
        if rows == 2:
            assert torch.equal(data[7].image, torch.from_numpy(noise).permute(2, 0, 1))
            continue
        with pytest.raises(DataError, match="more than 0 MiB when unpacked"):
            data[0]


@pytest.mark.timeout(20)
def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "test.parquet")
    for place in (tmp_path, tmp_path / "test.parquet"):
        with pytest.raises(DataError, match=r"test\.parquet: a device, a FIFO or a socket"):
            samples(f"hf:{place}")


def test_a_name_needs_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captum_astro.extras.find_spec", lambda library: None)
    wanted = (
        r"There is no file or folder owner/pets here, and reading it from the Hub needs datasets, which is not "
        r'installed: pip install "captum-astro\[hub\]"'
    )
    with pytest.raises(MissingExtraError, match=wanted):
        samples("hf:owner/pets:train")


def test_versions_of_datasets_that_run_programs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    old = ModuleType("datasets")
    old.__version__ = "2.14.0"
    monkeypatch.setitem(sys.modules, "datasets", old)
    monkeypatch.setattr("captum_astro.extras.find_spec", lambda library: True)
    with pytest.raises(DataError, match=r"owner/pets: datasets 2\.14\.0 may run a data set's own program: update it"):
        samples("hf:owner/pets")


@datasets_only
def test_files_that_datasets_writes_and_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    rows = {"image": [pixels(i) for i in range(6)], "label": [0, 1, 2, -1, 1, 0]}
    table = datasets.Dataset.from_dict(rows, features=features)
    (tmp_path / "data").mkdir()
    for part in range(2):
        table.shard(2, part, contiguous=True).to_parquet(tmp_path / "data" / f"test-{part:05}-of-00002.parquet")
    ours = HubImages(tmp_path)
    wanted = [(f"test {i}", [0, 1, 2, None, 1, 0][i], 10 * i) for i in range(6)]
    assert values(ours) == wanted
    assert ours.class_names == NAMES
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets").mkdir()
    (tmp_path / "data").rename(tmp_path / "pets" / "data")
    theirs = HubImages.__new__(HubImages)
    monkeypatch.setattr(Path, "exists", lambda path: False)  # datasets takes a folder for a name too
    theirs.__init__("pets:test")
    assert values(theirs) == wanted
    assert theirs.class_names == NAMES
    with pytest.raises(DataError, match="pets: no split 'train', only test"):
        HubImages("pets:train")
