from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captum_astro.data.imagenet_classes import imagenet_classes
from captum_astro.data.images import ImageError
from captum_astro.data.labelled_folder import LabelledFolder

SHARED = Path(__file__).parents[3] / "shared" / "data"
PIXELS = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)


def _folder(folder: Path, *rows: str) -> Path:
    Image.fromarray(PIXELS).save(folder / "a.png")
    Image.fromarray(PIXELS[:5]).save(folder / "b.png")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_labels_only(tmp_path: Path) -> None:
    data = LabelledFolder(_folder(tmp_path, "wnid,file,label", "n1,b.png,3", "n2,a.png,"))
    assert [(s.name, s.label, s.mask, s.human) for s in data] == [("b.png", 3, None, None), ("a.png", None, None, None)]
    assert np.array_equal(data[1].image.permute(1, 2, 0), PIXELS)
    assert pickle.loads(pickle.dumps(data))[0].label == 3


def test_optional_boxes(tmp_path: Path) -> None:
    rows = ("file,label,x0,y0,x1,y1", "a.png,3,1,2,4,6", "b.png,1,,,,", "a.png,3,,,,", "a.png,,5,0,6,1")
    data = LabelledFolder(_folder(tmp_path, *rows))
    first, second = data[0], data[1]
    expected = torch.zeros(8, 12, dtype=torch.int8)
    expected[2:6, 1:4] = 1
    expected[0, 5] = 1
    assert torch.equal(first.mask, expected)
    assert first.mask.dtype == torch.int8
    assert (second.label, second.mask) == (1, None)


def test_invalid_options(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"labels\.csv: row 2: x1 is '', not a number"):
        LabelledFolder(_folder(tmp_path, "file,label,x0,y0,x1,y1", "a.png,3,1,2,,6"))
    with pytest.raises(ValueError, match="row 1: no column y0, x1; there is file, label, x0, y1"):
        LabelledFolder(_folder(tmp_path, "file,label,x0,y1", "a.png,3,1,2"))
    with pytest.raises(ValueError, match="row 1: no column label; there is file"):
        LabelledFolder(_folder(tmp_path, "file", "a.png"))
    with pytest.raises(FileNotFoundError, match=r"row 2: there is no file .*c\.png"):
        LabelledFolder(_folder(tmp_path, "file,label", "c.png,1"))
    data = LabelledFolder(_folder(tmp_path, "file,label", "a.png,1", "b.png,2"))
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:80])
    with pytest.raises(ImageError, match=r"a\.png"):
        data[0]
    assert data[1].label == 2


@pytest.mark.skipif(not (SHARED / "images").is_dir(), reason="no photographs in shared/data/images")
def test_photographs() -> None:
    data = LabelledFolder(SHARED / "images")
    assert len(data) == 24
    for sample in data:
        assert sample.image.shape[0] == 3
        assert sample.label == imagenet_classes()[sample.name.split("_")[0]]
