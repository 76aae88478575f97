from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captum_astro.data.registry import sources
from captum_astro.data.specs import human_samples, samples
from captum_astro.data.tables import DataError
from tests.data.test_clickme import npz
from tests.data.test_hub import hub_folder
from tests.data.test_imagenet_segmentation import _some, _written
from tests.training.making import cifar_folder, cifar_parquet

SHARED = Path(__file__).parents[3] / "shared" / "data"


def _image(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4)).save(file)


def test_every_dataset_name(tmp_path: Path) -> None:
    _image(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("file,label\na.png,7\n")
    (tmp_path / "boxes.csv").write_text("file,label,x0,y0,x1,y1\na.png,7,1,0,3,2\n")
    _image(tmp_path / "images" / "b.png")
    (tmp_path / "masks").mkdir()
    Image.new("L", (6, 4)).save(tmp_path / "masks" / "b.png")
    _image(tmp_path / "val" / "n02123045" / "c.JPEG")
    _written(tmp_path / "d.mat", *_some(2))
    (tmp_path / "clickme").mkdir()
    (tmp_path / "clickme" / "0.npz").write_bytes(npz(0))
    cifar_parquet(tmp_path, train=4, test=3)
    (tmp_path / "hub").mkdir()
    found = {
        spec: (len(data), data[0].name, data[0].label, data[0].mask is not None, data[0].human is not None)
        for spec in (
            "scenes",
            f"folder:{tmp_path}",
            f"boxes:{tmp_path}",
            f"masks:{tmp_path}",
            f"imagenet:{tmp_path / 'val'}",
            f"imagenet-segmentation:{tmp_path / 'd.mat'}",
            f"clickme:{tmp_path / 'clickme'}",
            f"cifar10:{tmp_path}",
            f"cifar10:{tmp_path / 'cifar10_test.parquet'}",
            f"hf:{hub_folder(tmp_path / 'hub', {'test': [range(4)]})}",
        )
        for data in [samples(spec)]
    }
    assert list(found.values()) == [
        (500, "scene 0", samples("scenes", 1)[0].label, True, True),
        (1, "a.png", 7, False, False),
        (1, "a.png", 7, True, True),
        (1, "b.png", None, True, False),
        (1, "n02123045/c.JPEG", 281, False, False),
        (2, "0", None, True, False),
        (1, "0.npz", 0, False, True),
        (3, "test 0", 0, False, False),
        (3, "test 0", 0, False, False),
        (4, "test 0", 0, False, False),
    ]
    boxes = samples(f"boxes:{tmp_path}")[0]
    assert boxes.mask.tolist() == [[0, 1, 1, 0, 0, 0]] * 2 + [[0] * 6] * 2
    assert len(list(human_samples(f"boxes:{tmp_path}"))) == 1
    assert len(samples(f"cifar10:{cifar_folder(tmp_path / 'images')}", limit=3)) == 3


def test_limits(tmp_path: Path) -> None:
    wnids = ("n01440764", "n02123045", "n15075141")
    for wnid in wnids:
        for number in range(4):
            _image(tmp_path / wnid / f"{number}.JPEG")
    spec = f"imagenet:{tmp_path}"
    spread = samples(spec, limit=6)
    assert [sample.name for sample in spread] == [f"{wnid}/{n}.JPEG" for wnid in wnids for n in (0, 2)]
    for limit in (12, 13, None):
        assert len(samples(spec, limit)) == 12
    cifar_parquet(tmp_path, train=4, test=5)
    assert [sample.name for sample in samples(f"cifar10:{tmp_path}", limit=2)] == ["test 0", "test 1"]


@pytest.mark.parametrize("spec", ["", "nothing", "scenes:here", "scenes:", "folder", "cifar:x"])
def test_unknown_names(spec: str) -> None:
    with pytest.raises(ValueError, match="--data must be scenes, boxes:FOLDER, cifar10:PATH"):
        samples(spec)


@pytest.mark.parametrize("word", [word for word, source in sources().items() if source.place])
@pytest.mark.parametrize("path", ["", " "])
def test_an_empty_path_is_not_the_current_folder(
    word: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _image(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("file,label\na.png,7\n")
    monkeypatch.chdir(tmp_path)
    assert len(samples("folder:./")) == 1
    with pytest.raises(ValueError, match=rf"--data must be {word}:[A-Z]+: '{word}:{path}' names none.* is '\./'"):
        samples(f"{word}:{path}")


@pytest.mark.parametrize("limit", [0, -1, 2.5, float("nan"), "3"])
@pytest.mark.parametrize("read", [samples, human_samples])
def test_limits_that_are_no_counts(limit: Any, read: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"limit must be at least 1, not {limit!r}; or None for all")):
        read("scenes", limit)


def test_invalid_options(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="limit must be at least 1, not 0"):
        samples("scenes", 0)
    for word in ("imagenet", "masks", "imagenet-segmentation", "cifar10", "cifar100", "hf"):
        with pytest.raises(DataError, match=r"there is no such"):
            samples(f"{word}:{tmp_path / 'nowhere'}")
    for word in ("folder", "boxes", "clickme"):
        with pytest.raises(FileNotFoundError, match="there is no such"):
            samples(f"{word}:{tmp_path / 'nowhere'}")


@pytest.mark.skipif(not (SHARED / "cifar10_test.parquet").is_file(), reason="no cifar10_test.parquet in shared/data")
def test_real_cifar() -> None:
    data = samples(f"cifar10:{SHARED / 'cifar10_test.parquet'}")
    labels = [data[index].label for index in range(len(data))]
    assert np.bincount(labels, minlength=10).min() > 0
    assert data[0].image.shape == (3, 32, 32)
