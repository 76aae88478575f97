"""Insertion, deletion, masks and random cells as Quantus classes: the functions' values, whatever the batch size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from captum_astro.metrics.average_drop import average_drop, average_increase, masked_by_map
from captum_astro.metrics.insertion_deletion import abpc, deletion, insertion
from captum_astro.metrics.perturbation import class_probability
from captum_astro.metrics.perturber import Perturber
from captum_astro.metrics.quantus import (
    ABPC,
    AverageDrop,
    AverageIncrease,
    Deletion,
    Infidelity,
    Insertion,
    SensitivityN,
)
from captum_astro.metrics.random_cells import Removals, infidelity, random_sets, sensitivity_n
from tests.metrics.test_perturber import MEAN, STD, normaliser, tiny

PIXELS = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
MAPS = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(1))
CLASSES = torch.tensor([2, 0, 7])
NORMALISE = normaliser(torch.float32)


def probability(model: torch.nn.Module, pixels: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(NORMALISE(pixels)).double().softmax(-1)[torch.arange(len(pixels)), classes]


def by_hand(baseline: str = "black") -> dict[str, torch.Tensor]:
    model = tiny(torch.float32)
    engine = Perturber(model, NORMALISE, baseline=baseline)
    curves = [class_probability(each, CLASSES) for each in engine.curves(PIXELS, MAPS, engine.untouched(PIXELS))]
    whole, masked = (probability(model, images, CLASSES) for images in (PIXELS, masked_by_map(PIXELS, MAPS)))
    sets = random_sets(32, 32)
    left = [
        probability(model, (image * ~sets.flatten(0, 1)[:, None]), chosen.expand(len(sets.flatten(0, 1))))
        for image, chosen in zip(PIXELS, CLASSES, strict=True)
    ]
    drops = whole[:, None, None] - torch.stack(left).reshape(3, *sets.shape[:2])
    cells = Removals(torch.einsum("bhw,ckhw->bck", MAPS.double(), sets.double()), drops)
    return {
        "Deletion": deletion(curves[0]),
        "Insertion": insertion(curves[1]),
        "ABPC": abpc(*curves),
        "AverageDrop": average_drop(whole, masked),
        "AverageIncrease": average_increase(whole, masked),
        "SensitivityN": sensitivity_n(cells),
        "Infidelity": infidelity(cells),
    }


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize(
    "metric",
    [ABPC, AverageDrop, AverageIncrease, Deletion, Infidelity, Insertion, SensitivityN],
    ids=lambda m: m.__name__,
)
def test_values(metric: Any, batch_size: int) -> None:
    given = {"x_batch": NORMALISE(PIXELS).numpy(), "y_batch": CLASSES.numpy(), "a_batch": MAPS[:, None].numpy()}
    found = metric(MEAN, STD)(model=tiny(torch.float32), batch_size=batch_size, **given)
    assert found == pytest.approx(by_hand()[metric.__name__].tolist(), rel=1e-3, abs=1e-7)


def test_blurred() -> None:
    given = {"x_batch": NORMALISE(PIXELS).numpy(), "y_batch": CLASSES.numpy(), "a_batch": MAPS[:, None].numpy()}
    expected = by_hand("blurred")
    for metric in (Deletion, Insertion, ABPC):
        found = metric(MEAN, STD, baseline="blurred")(model=tiny(torch.float32), **given)
        assert found == pytest.approx(expected[metric.__name__].tolist(), rel=1e-4, abs=1e-7)
        assert not np.allclose(found, by_hand()[metric.__name__].numpy(), rtol=1e-3)
