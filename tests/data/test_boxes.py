from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from captum_astro.data.boxes import Boxes
from captum_astro.data.human import prepare_heatmap
from captum_astro.data.images import ImageError

PIXELS = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)


def _folder(folder: Path, *rows: str, header: str = "file,label,x0,y0,x1,y1") -> Path:
    Image.fromarray(PIXELS).save(folder / "a.png")
    Image.fromarray(PIXELS[:5]).save(folder / "b.png")
    (folder / "boxes.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder


def test_boxes(tmp_path: Path) -> None:
    folder = _folder(tmp_path, "b.png,,0,0,12,5", "a.png,3,1,2,4,6", "./a.png,,3,5,12,8", "", "a.png,3,1,2,4,6")
    data = Boxes(folder)
    assert len(data) == 2
    whole, two = data[0], data[1]
    assert (whole.name, whole.label) == ("b.png", None)
    assert torch.equal(whole.human, torch.ones(5, 12))
    assert (two.name, two.label) == ("a.png", 3)
    assert np.array_equal(two.image.permute(1, 2, 0), PIXELS)
    expected = torch.tensor(
        [[float((1 <= x < 4 and 2 <= y < 6) or (3 <= x < 12 and 5 <= y < 8)) for x in range(12)] for y in range(8)]
    )
    assert torch.equal(two.human, expected)
    assert prepare_heatmap(two.human).shape == (224, 224)
    assert [s.name for s in DataLoader(data, batch_size=None, num_workers=2)] == ["b.png", "a.png"]
    for index in (2, -1):
        with pytest.raises(IndexError, match="There are 2 images"):
            data[index]


def test_pixel_belongs_to_a_box_by_its_centre(tmp_path: Path) -> None:
    human = Boxes(_folder(tmp_path, "a.png,1,1.5,2.6,3.6,4.5"))[0].human
    assert human.nonzero().tolist() == [[3, 1], [3, 2], [3, 3]]


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "r.jpg", exif=exif)
    (tmp_path / "t.csv").write_text("x0,y0,x1,y1,label,file,note\n0,8,8,12,1,r.jpg,hello\n", encoding="utf-8-sig")
    sample = Boxes(tmp_path, csv="t.csv")[0]
    assert sample.image.shape == (3, 12, 8)
    assert sample.human[8:].all()
    assert sample.human.sum() == 32


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,1,0,0,x,2", "row 3: x1 is 'x', not a number"),
        ("a.png,1,0,nan,1,2", "row 3: y0 is 'nan', not a number"),
        ("a.png,1,0,0,1", "row 3: y1 is '', not a number"),
        ("a.png,cat,0,0,1,1", "row 3: label is 'cat', not a whole number"),
        ("a.png,-1,0,0,1,1", "row 3: label is -1"),
        ("b.png,2,0,0,1,1", "row 3: b.png has label 2 here and 1 in an earlier row"),
        ("a.png,1,4,0,4,2", "row 3: the box 4,0,4,2 is empty"),
        ("a.png,1,0,3,4,2", "row 3: the box 0,3,4,2 is empty"),
        ("a.png,1,0,0,0.4,2", "row 3: the box 0,0,0.4,2 is empty"),
        (",1,0,0,4,2", "row 3: no file is named"),
    ],
)
def test_bad_rows(tmp_path: Path, row: str, message: str) -> None:
    folder = _folder(tmp_path, "b.png,1,0,0,1,1", row)
    with pytest.raises(ValueError, match=rf"boxes\.csv: {message}"):
        Boxes(folder)


@pytest.mark.parametrize("box", ["-1,0,2,2", "0,-0.1,2,2", "0,0,13,2", "0,0,2,8.01"])
def test_outside(tmp_path: Path, box: str) -> None:
    data = Boxes(_folder(tmp_path, f"a.png,1,{box}"))
    with pytest.raises(ValueError, match=rf"row 2: the box {box} is not inside a\.png, which is 12 x 8 pixels"):
        data[0]


def test_bad_tables(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no such table"):
        Boxes(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"row 2: there is no file .*c\.png"):
        Boxes(_folder(tmp_path, "c.png,1,0,0,1,1"))
    with pytest.raises(ValueError, match="row 1: no column label, x1; there is file, x0, y0, y1"):
        Boxes(_folder(tmp_path, header="file,x0,y0,y1"))
    with pytest.raises(ValueError, match="no row below the header"):
        Boxes(_folder(tmp_path))
    (tmp_path / "boxes.csv").write_bytes(b"")
    with pytest.raises(ValueError, match="there is nothing"):
        Boxes(tmp_path)
    (tmp_path / "boxes.csv").write_bytes(b"file,label,x0,y0,x1,y1\n\xff\xfe,1,0,0,1,1\n")
    with pytest.raises(ValueError, match="not a CSV in UTF-8"):
        Boxes(tmp_path)
    data = Boxes(_folder(tmp_path, "a.png,1,0,0,1,1"))
    (tmp_path / "a.png").write_text("text")
    with pytest.raises(ImageError, match=r"a\.png"):
        data[0]
