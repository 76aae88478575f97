"""Insertion, deletion and ABPC against loops over the levels, with both baselines."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torchvision.transforms.functional import gaussian_blur

from captum_astro.metrics.insertion_deletion import abpc, deletion, insertion
from captum_astro.metrics.perturbation import class_probability
from captum_astro.metrics.perturber import Baseline, Perturber
from tests.metrics.test_perturbation import masks_by_loops
from tests.metrics.test_perturber import normaliser, tiny

STEPS = 5


def images_and_maps(size: tuple[int, int] = (32, 32)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    pixels = torch.rand(3, 3, *size, generator=generator, dtype=torch.float64)
    return pixels, torch.randn(3, *size, generator=generator, dtype=torch.float64)


def _area(curve: list[float]) -> float:
    return sum(a + b for a, b in pairwise(curve)) / 2 / STEPS


@pytest.mark.parametrize("baseline", ["black", "blurred"])
def test_curves_equal_the_loops(baseline: Baseline) -> None:
    model, normalise = tiny(torch.float64), normaliser(torch.float64)
    pixels, maps = images_and_maps()
    classes = [1, 4, 7]
    engine = Perturber(model, normalise, steps=STEPS, batch_size=7, baseline=baseline)
    positive, negative = (
        class_probability(logits, torch.tensor(classes))
        for logits in engine.curves(pixels, maps, engine.untouched(pixels))
    )
    for i, (image, values, label) in enumerate(zip(pixels, maps, classes, strict=True)):
        filling = (
            torch.zeros_like(image) if baseline == "black" else gaussian_blur(image, 3, 5 / 7)
        )  # the smallest kernel
        expected = {}
        for first in (True, False):
            masks = masks_by_loops(values.flatten().tolist(), STEPS, most_important_first=first)
            curve = []
            for mask in masks:
                gone = torch.tensor(mask).reshape(32, 32)
                with torch.no_grad():
                    curve.append(model(normalise(torch.where(gone, filling, image))[None]).softmax(-1)[0, label].item())
            expected[first] = curve
        areas = {first: _area(curve) for first, curve in expected.items()}
        assert deletion(positive)[i].item() == pytest.approx(areas[True], abs=1e-12)
        assert insertion(negative)[i].item() == pytest.approx(_area(expected[False][::-1]), abs=1e-12)
        assert abpc(positive, negative)[i].item() == pytest.approx(areas[False] - areas[True], abs=1e-12)


def test_the_blur_is_rises_at_224_pixels() -> None:
    pixels = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    engine = Perturber(lambda x: x.flatten(1), lambda x: x, steps=2, baseline="blurred")
    maps = torch.rand(1, 224, 224, generator=torch.Generator().manual_seed(1))
    last = engine.curves(pixels, maps, engine.untouched(pixels)).positive[0, -1]
    assert torch.equal(last.reshape(3, 224, 224), gaussian_blur(pixels[0], 11, 5))


def test_blurring_leaves_other_images_of_the_batch_alone() -> None:
    model, normalise = tiny(torch.float64), normaliser(torch.float64)
    pixels, maps = images_and_maps()
    engine = Perturber(model, normalise, steps=STEPS, baseline="blurred")
    whole = engine.curves(pixels, maps, engine.untouched(pixels)).negative
    for i in range(3):
        alone = engine.curves(pixels[i, None], maps[i, None], engine.untouched(pixels[i, None])).negative
        assert torch.allclose(alone[0], whole[i], rtol=0, atol=1e-12)


def test_opposite_maps_have_opposite_areas() -> None:
    model, normalise = tiny(torch.float64), normaliser(torch.float64)
    pixels, maps = images_and_maps()
    engine = Perturber(model, normalise, steps=4)
    found = []
    for sign in (1, -1):
        curves = engine.curves(pixels, sign * maps, engine.untouched(pixels))
        found.append(abpc(*(class_probability(logits, torch.zeros(3).long()) for logits in curves)))
    assert torch.allclose(found[0], -found[1], atol=1e-12)


def test_unknown_baseline() -> None:
    with pytest.raises(ValueError, match=r"baseline must be black or blurred, not 'white'\."):
        Perturber(tiny(torch.float64), lambda x: x, baseline="white")
