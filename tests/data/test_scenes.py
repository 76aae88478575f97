from __future__ import annotations

import pytest
import torch

from captum_astro.data.scenes import Scenes, batch


def test_scene_depends_only_on_its_index() -> None:
    few, many = Scenes("test", 3), Scenes("test", 50)
    for a, b in zip(few, (many[i] for i in range(3)), strict=True):
        assert torch.equal(a.image, b.image)
        assert torch.equal(a.mask, b.mask)
        assert a.label == b.label
    assert not torch.equal(few[0].image, Scenes("test", 3, seed=1)[0].image)


def test_held_out_digits_are_never_trained_on() -> None:
    train, test = Scenes("train")._images, Scenes("test")._images
    assert len(train) + len(test) == 1797
    assert len(test) == 360
    assert not {a.tobytes() for a in train} & {a.tobytes() for a in test}


def test_scenes_are_images_with_an_object() -> None:
    images, labels, masks = batch(Scenes("train", 64), range(64))
    assert images.shape == (64, 3, 64, 64)
    assert images.min() >= 0
    assert images.max() <= 1
    assert set(labels.tolist()) == set(range(10))
    share = masks.float().mean((1, 2))
    assert share.min() > 0.01
    assert share.max() < 0.35
    with pytest.raises(ValueError, match="'train' or 'test'"):
        Scenes("validation")
    with pytest.raises(IndexError, match="64 scenes"):
        Scenes("train", 64)[64]


@pytest.mark.parametrize(("size", "seed"), [(0, 0), (-1, 0), (1, -1)])
def test_numbers_that_are_too_small(size: int, seed: int) -> None:
    with pytest.raises(ValueError, match="size must be at least 1 and seed at least 0"):
        Scenes("test", size, seed)
