from __future__ import annotations

from pathlib import Path

import pytest
import torch

from captum_astro.data import registry
from captum_astro.data.human import HumanSample
from captum_astro.data.registry import register_data, sources
from captum_astro.data.samples import Sample
from captum_astro.data.specs import human_samples, samples


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    sources()
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))


def _image(path: Path, number: int) -> torch.Tensor:
    return torch.full((3, 2, 2), len(path.name) + number, dtype=torch.uint8)


def test_custom_reader(tmp_path: Path) -> None:
    def people(path: Path, limit: int | None) -> list[HumanSample]:
        return [HumanSample(_image(path, i), torch.ones(2, 2), None, f"{i}") for i in range(5)]

    @register_data("three", place="FILE", human=people)
    class Three:
        def __init__(self, path: Path) -> None:
            self.path = path

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Sample:
            return Sample(_image(self.path, index), None, None, None, f"{index}")

    assert [samples("three:abcd")[i].image.max().item() for i in range(3)] == [4, 5, 6]
    assert len(samples("three:abcd", limit=2)) == 2
    assert [sample.name for sample in human_samples("three:abcd", limit=4)] == ["0", "1", "2", "3"]
    with pytest.raises(ValueError, match=r"--data must be scenes, .*, masks:FOLDER or three:FILE, not 'four:a'"):
        samples("four:a")
    with pytest.raises(
        ValueError, match="--data must be scenes, boxes:FOLDER, clickme:PATH or three:FILE, not 'three'"
    ):
        human_samples("three")


def test_duplicate_dataset_name_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"There is already a dataset 'masks', in captum_astro\.data\.mask_folders"):
        register_data("masks")(dict)
    assert sources()["masks"].form == "masks:FOLDER"
