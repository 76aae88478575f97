from __future__ import annotations

import pickle

import pytest
import torch

from captum_astro.data.samples import HumanSamples, checked
from captum_astro.data.scenes import HumanScenes, Scenes


def test_scenes_as_samples() -> None:
    scenes = Scenes("test", 3)
    data = HumanSamples(HumanScenes(scenes))
    assert len(data) == 3
    for index in (2, 0):
        sample, scene = data[index], scenes[index]
        assert (sample.name, sample.label) == (f"scene {index}", scene.label)
        assert torch.equal(sample.mask.bool(), scene.mask)
        assert sample.mask.dtype == torch.int8
        assert sample.image.dtype == torch.uint8
        assert (sample.image / 255 - scene.image).abs().max() <= 0.5 / 255 + 1e-6
        assert torch.equal(sample.human, scene.mask.float())
    assert len(list(data)) == 3
    assert torch.equal(pickle.loads(pickle.dumps(data))[1].image, data[1].image)


def test_numbers() -> None:
    assert checked(1, 2) == 1
    for index in (-1, 2):
        with pytest.raises(IndexError, match=f"There are 2 images, numbered from 0; {index} was asked for"):
            checked(index, 2)
