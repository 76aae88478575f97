from __future__ import annotations

import pickle
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from captum_astro.data.imagenet import ImageNetValidation
from captum_astro.data.imagenet_classes import imagenet_classes
from captum_astro.data.images import ImageError
from captum_astro.data.tables import DataError

WNIDS = ("n01440764", "n02123045", "n15075141")  # classes 0, 281 and 999
NAME = "ILSVRC2012_val_{:08d}.JPEG"


def _write(folder: Path, *numbers: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        Image.new("RGB", (5 + number, 4), (number, 0, 0)).save(folder / NAME.format(number))
    return folder


def _labels(data: ImageNetValidation) -> list[tuple[str, int | None]]:
    return [(sample.name, sample.label) for sample in data]


@pytest.mark.parametrize("above", ["", "val", "validation"])
def test_folders_of_classes(tmp_path: Path, above: str) -> None:
    for wnid, numbers in zip(WNIDS, ((7, 2), (5,), (9, 1)), strict=True):
        _write(tmp_path / above / wnid, *numbers)
    (tmp_path / above / WNIDS[0] / "._hidden.JPEG").write_text("")
    (tmp_path / above / WNIDS[0] / "notes.txt").write_text("")
    (tmp_path / above / "other").mkdir()
    data = ImageNetValidation(tmp_path)
    order = ((0, 2, 0), (0, 7, 0), (1, 5, 281), (2, 1, 999), (2, 9, 999))
    assert _labels(data) == [(f"{WNIDS[wnid]}/{NAME.format(number)}", label) for wnid, number, label in order]
    assert data[1].image.shape == (3, 4, 12)
    assert data.by_class
    assert pickle.loads(pickle.dumps(data))[4].label == 999


def test_torchvisions_order(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    classes = sorted(imagenet_classes())
    for number, wnid in enumerate(reversed(classes)):
        (tmp_path / wnid).mkdir()
        (tmp_path / wnid / NAME.format(number)).write_bytes(b"")
    data, theirs = ImageNetValidation(tmp_path), ImageFolder(str(tmp_path))
    assert data._samples == [(str(Path(path).relative_to(tmp_path)), label) for path, label in theirs.samples]


def test_pixels_as_stored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    _write(tmp_path / WNIDS[0], 1)
    Image.new("RGB", (9, 4)).save(tmp_path / WNIDS[0] / NAME.format(1), exif=exif)
    assert ImageNetValidation(tmp_path)[0].image.shape == (3, 4, 9)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "LOC_val_solution.csv",
            "ImageId,PredictionString\n{2},n02123045 1 2 3 4 n02123045 1 1 2 2 \n{1},n01440764 0 0 1 1 \n",
        ),
        ("val.txt", "{2}.JPEG 281\n{1}.JPEG 0\n{9}.JPEG 5\n"),
        ("val.txt", "{1} n01440764\r\nval/{2}.JPEG n02123045\r\n"),
        ("imagenet_2012_validation_synset_labels.txt", "n01440764\nn02123045\nn15075141\n"),
    ],
)
@pytest.mark.parametrize("where", ["inside", "above"])
def test_lists(tmp_path: Path, name: str, text: str, where: str) -> None:
    images = _write(tmp_path / "val", 2, 1)
    for number in (1, 2, 9):
        text = text.replace(f"{{{number}}}", NAME.format(number).removesuffix(".JPEG"))
    ((images if where == "inside" else tmp_path) / name).write_text(text)
    wanted = [(NAME.format(1), 0), (NAME.format(2), 281)]
    for folder in (tmp_path, images):
        data = ImageNetValidation(folder)
        assert _labels(data) == wanted
        assert not data.by_class
    _write(images, 4)  # not in the list, or beyond its end
    assert _labels(ImageNetValidation(tmp_path)) == wanted


def test_kaggles_folders(tmp_path: Path) -> None:
    _write(tmp_path / "ILSVRC/Data/CLS-LOC/val", 3)
    stem = NAME.format(3).removesuffix(".JPEG")
    (tmp_path / "LOC_val_solution.csv").write_text(f"ImageId,PredictionString\n{stem},n15075141 1 2 3 4\n")
    assert _labels(ImageNetValidation(tmp_path)) == [(NAME.format(3), 999)]


def _meta(file: Path) -> None:
    kinds = [("ILSVRC2012_ID", object), ("WNID", object), ("num_children", object)]
    rows = [(1, WNIDS[2], 0), (2, WNIDS[0], 0), (3, WNIDS[1], 0), (4, "n00001740", 3)]
    savemat(file, {"synsets": np.array(rows, dtype=kinds)[:, None]})


def test_devkit(tmp_path: Path) -> None:
    _write(tmp_path, 3, 1)
    kit = tmp_path / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n3\n2\n")
    with pytest.raises(DataError, match=r"its numbers are the devkit's own.*Put the devkit's meta\.mat beside it"):
        ImageNetValidation(tmp_path)
    _meta(kit / "meta.mat")
    assert _labels(ImageNetValidation(tmp_path)) == [(NAME.format(1), 999), (NAME.format(3), 0)]
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n7\n2\n")
    with pytest.raises(DataError, match="line 2: '7' is no class"):
        ImageNetValidation(tmp_path)
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n4\n2\n")
    with pytest.raises(DataError, match="line 2: n00001740 is not one of ImageNet's 1000 classes"):
        ImageNetValidation(tmp_path)
    (kit / "meta.mat").write_bytes(b"no")
    with pytest.raises(DataError, match=r"meta\.mat: not the devkit's"):
        ImageNetValidation(tmp_path)


def test_a_meta_mat_on_which_scipy_crashes(tmp_path: Path) -> None:
    _write(tmp_path, 1)
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n")
    _meta(tmp_path / "meta.mat")
    numbers_of_no_type = (tmp_path / "meta.mat").read_bytes().replace(struct.pack("<II", 12, 8), bytes(8), 1)
    (tmp_path / "meta.mat").write_bytes(numbers_of_no_type)
    with pytest.raises(DataError, match=r"meta\.mat: not the devkit's meta\.mat, or damaged \("):
        ImageNetValidation(tmp_path)


def test_nothing_is_imported_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SciPy's reader runs in a process of its own."""
    (tmp_path / "scipy.py").write_text("raise SystemExit('harmed')")
    (tmp_path / "json.py").write_text("raise SystemExit('harmed')")
    _write(tmp_path, 1)
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n")
    _meta(tmp_path / "meta.mat")
    monkeypatch.chdir(tmp_path)
    assert _labels(ImageNetValidation(tmp_path)) == [(NAME.format(1), 999)]


def test_invalid_options(tmp_path: Path) -> None:
    def fails(message: str, folder: Path = tmp_path) -> None:
        with pytest.raises(DataError, match=re.escape(message)):
            ImageNetValidation(folder)

    fails("there is no such folder", tmp_path / "nowhere")
    fails("neither folders named by WordNet ids")
    _write(tmp_path, 1, 2)
    fails("no list of them (LOC_val_solution.csv, val.txt,")
    stems = [NAME.format(number).removesuffix(".JPEG") for number in (1, 2)]
    for text, message in (
        (f"{stems[0]} 1\n{stems[1]} 2\n", "numbers the images 1, 2, 3 and says no class"),
        (f"{stems[0]} 1000\n{stems[1]} 2\n", "a class is 1000; they are numbered 0 to 999"),
        (f"{stems[0]} 3\n\n{stems[1]} -2\n", "val.txt, line 3: the class is '-2'"),
        (f"{stems[0]}\n", "val.txt, line 1: 'ILSVRC2012_val_00000001' is not a name and a class"),
        (f"{stems[0]} n00000001\n", "val.txt, line 1: n00000001 is not one of"),
        ("other.JPEG 3\n", "of the 2 images in"),
    ):
        (tmp_path / "val.txt").write_text(text)
        fails(message)
    (tmp_path / "val.txt").write_bytes(b"\xff\xfe\x00")
    fails("not a text in UTF-8")
    (tmp_path / "LOC_val_solution.csv").write_text("a,b\n1,2\n")
    fails("line 1: the columns are ImageId,PredictionString")
    _write(tmp_path / "n00000001", 1)
    fails("n00000001 is not one of ImageNet's 1000 classes")


def test_a_damaged_image(tmp_path: Path) -> None:
    folder = _write(tmp_path / WNIDS[0], 1, 2)
    (folder / NAME.format(1)).write_bytes(b"\xff\xd8\xff")
    data = ImageNetValidation(tmp_path)
    with pytest.raises(ImageError, match=NAME.format(1)):
        data[0]
    assert data[1].label == 0
    with pytest.raises(IndexError, match="There are 2 images"):
        data[2]
