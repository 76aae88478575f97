from __future__ import annotations

from pathlib import Path

import pytest

from captum_astro.data.imagenet_lists import listed_classes
from captum_astro.data.tables import DataError

STEM = "ILSVRC2012_val_{:08d}"


def _write(folder: Path, **texts: str) -> Path:
    folder.mkdir(exist_ok=True)
    names = {
        "kaggle": "LOC_val_solution.csv",
        "pairs": "val.txt",
        "wnids": "imagenet_2012_validation_synset_labels.txt",
    }
    for form, text in texts.items():
        (folder / names[form]).write_bytes(text.encode())
    return folder


@pytest.mark.parametrize(
    "texts",
    [
        {"kaggle": f"\ufeffImageId,PredictionString\r\n{STEM.format(1)},n01440764 1 2 3 4 n01440764 5 6 7 8\r\n"},
        {"pairs": f"val/{STEM.format(1)}.JPEG   0\n\n"},
        {"pairs": f"{STEM.format(1)}.JPEG n01440764"},
        {"wnids": "n01440764\n"},
    ],
)
def test_every_format_reads_the_same(tmp_path: Path, texts: dict[str, str]) -> None:
    file, found = listed_classes([_write(tmp_path, **texts)])
    assert file.parent == tmp_path
    assert found == {STEM.format(1): 0}


def test_clearest_list_wins_then_the_nearest_folder(tmp_path: Path) -> None:
    near, far = _write(tmp_path / "near", pairs="a 1\n"), _write(tmp_path / "far", pairs="a 2\n")
    assert listed_classes([near, far])[1] == {"a": 1}
    _write(far, kaggle="ImageId,PredictionString\na,n02123045 1 2 3 4\n")
    assert listed_classes([near, far]) == (far / "LOC_val_solution.csv", {"a": 281})


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({}, "no list of them"),
        ({"kaggle": "a,b\n"}, "line 1: the columns are"),
        ({"kaggle": "ImageId,PredictionString\na\n"}, "line 2:  is not one of"),
        ({"kaggle": "ImageId,PredictionString\n" + "a" * 200_000 + ",n02123045\n"}, "after line .: not a CSV"),
        ({"pairs": "a 1\nb 2\nc 3\n"}, "says no class"),
        ({"pairs": "a 7\nb 1000\n"}, "a class is 1000"),
        ({"pairs": "a\n"}, "line 1: 'a' is not a name and a class"),
        ({"wnids": "n01440764\n\n0\n"}, "line 3: 0 is not one of"),
    ],
)
def test_invalid_options(tmp_path: Path, texts: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        listed_classes([_write(tmp_path, **texts)])
