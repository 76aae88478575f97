from __future__ import annotations

import pickle

import pytest
import torch

from captum_astro.data.human import HumanSample
from captum_astro.data.samples import HumanSamples, Sample, checked, sample_digest
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
        with pytest.raises(IndexError, match=f"There are 2 images, numbered from 0, but index {index} was requested"):
            checked(index, 2)


def test_digest_covers_the_whole_sample() -> None:
    image, human = torch.arange(3 * 8 * 8, dtype=torch.uint8).view(3, 8, 8), torch.rand(8, 6)
    sample = Sample(image, 3, torch.ones(8, 8, dtype=torch.int8), human, "one")
    seen = HumanSample(image, human, 3, "one")
    others = [
        *(one._replace(name="caf\udce9.png") for one in (sample, seen)),
        *(one._replace(label=None) for one in (sample, seen)),
        *(one._replace(image=image.flip(0)) for one in (sample, seen)),
        *(one._replace(image=image.reshape(3, 4, 16)) for one in (sample, seen)),
        *(one._replace(human=human.T) for one in (sample, seen)),
        sample._replace(mask=None, human=None),
        sample._replace(mask=torch.zeros(8, 8, dtype=torch.int8)),
    ]
    assert len({sample_digest(one) for one in (sample, seen, *others)}) == 2 + len(others)
    assert sample_digest(seen) == sample_digest(seen._replace(image=image.clone(), human=human.clone()))
