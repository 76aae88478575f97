from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from captum_astro.data.image_table import ImageTable


def _table(folder: Path, text: str, boxes: bool = False) -> ImageTable:
    for mode, name in (("RGB", "a.png"), ("L", "grey.png"), ("RGBA", "clear.png"), ("P", "with, comma.png")):
        Image.new(mode, (6, 4)).save(folder / name)
    (folder / "t.csv").write_text(text, encoding="utf-8")
    return ImageTable(folder, "t.csv", boxes=boxes)


def test_images_of_all_kinds_and_odd_rows(tmp_path: Path) -> None:
    rows = 'label, file ,note\n3,./a.png,x,more,and more\n\n,grey.png\n 7 ,clear.png\n"1","with, comma.png"\n3,a.png\n'
    table = _table(tmp_path, rows.replace(" file ", "file"))
    assert [(one.name, one.label) for one in (table[i] for i in range(len(table)))] == [
        ("a.png", 3), ("grey.png", None), ("clear.png", 7), ("with, comma.png", 1),
    ]  # fmt: skip
    assert {tuple(table[i].image.shape) for i in range(4)} == {(3, 4, 6)}
    assert table[2].image.min() == 255  # what is clear shows white
    assert all(table[i].inside is None for i in range(4))


def test_boxes_are_joined_and_labels_found_in_any_row(tmp_path: Path) -> None:
    table = _table(tmp_path, "file,label,x0,y0,x1,y1\na.png,,0,0,1,1\na.png,5,2,1,6,4\n", boxes=True)
    one = table[0]
    assert one.label == 5
    assert one.inside is not None
    assert one.inside.sum() == 1 + 4 * 3
    with pytest.raises(IndexError, match="There are 1 images"):
        table[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "row 1: no column file, label; there is nothing"),
        ("file;label\na.png;1\n", "row 1: no column file, label; there is file;label"),
        ("file,label\n", "no row below the header"),
        ("file,label\na.png,1.0\n", "row 2: label is '1.0', not a whole number"),
        ("file,label\na.png,1\na.png,2\n", "row 3: a.png has label 2 here and 1 in an earlier row"),
        ("file,label,x0,y0,x1,y1\na.png,1,0,0,inf,1\n", "row 2: x1 is 'inf', not a number"),
        ('file,label\n"' + "a" * 200_000, "not a CSV in UTF-8"),
    ],
)
def test_invalid_options(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _table(tmp_path, text)


def test_messages_about_long_cells_are_short(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"row 2: there is no file \S*/aaa") as missing:
        _table(tmp_path, f"file,label\n{'a' * 5000},1\n")
    with pytest.raises(ValueError, match="row 2: label is 'aaa") as label:
        _table(tmp_path, f"file,label\na.png,{'a' * 5000}\n")
    with pytest.raises(ValueError, match="there is aaa") as header:
        _table(tmp_path, f"{'a' * 5000}\na.png\n")
    assert max(len(str(raised.value)) for raised in (missing, label, header)) < 700


@pytest.mark.timeout(20)
def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(ValueError, match=r"t\.csv: a device, a FIFO or a socket"):
        ImageTable(tmp_path, "t.csv", boxes=False)


def test_not_in_utf_8(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("file,label\ncaf\xe9.png,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match="not a CSV in UTF-8"):
        ImageTable(tmp_path, "t.csv", boxes=False)
