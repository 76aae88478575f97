"""The declarations of the benchmark's metrics."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from captum_astro.metrics import counts, pooled_mean_iou, pooled_pixel_accuracy
from captum_astro.metrics.declaration import Given, Metric, Scores
from captum_astro.metrics.registry import all_metrics, metric_named, register

NAMES = [
    "accuracy", "ADCC", "average drop", "average increase", "deletion", "insertion", "ABPC", "blurred deletion",
    "blurred insertion", "positive AUC", "negative AUC", "AOPC", "LOdds", "sensitivity-n", "infidelity", "ROAD",
    "pixel accuracy", "mIoU", "mAP", "pointing game", "energy inside", "object share", "SaCo", "Spearman",
    "Dice", "IoU", "SSIM", "max-sensitivity", "cascading randomisation", "layer randomisation", "sparseness",
]  # fmt: skip


def test_the_metrics_and_their_order() -> None:
    assert list(all_metrics()) == NAMES  # in which the rows' record has them: a run goes on only if it is the same


def test_each_says_in_a_sentence_what_it_measures() -> None:
    for name, info in all_metrics().items():
        assert info.meaning.endswith("."), name
        assert 30 < len(info.meaning) < 180, name


def test_lower_is_better_of_two() -> None:
    assert {name for name, info in all_metrics().items() if info.direction < 0} == {
        "positive AUC", "LOdds", "average drop", "deletion", "blurred deletion", "infidelity", "ROAD",
        "max-sensitivity", "cascading randomisation", "layer randomisation",
    }  # fmt: skip


def test_pooled_as_the_functions_on_tensors() -> None:
    found = counts(torch.rand(5, 6, 7), torch.randint(-1, 2, (5, 6, 7)))
    table = found.table().numpy()
    for name, expected in (("pixel accuracy", pooled_pixel_accuracy), ("mIoU", pooled_mean_iou)):
        pooling = metric_named(name).pooling
        assert pooling.value(table.sum(0)) == pytest.approx(expected(found), abs=1e-15)
        assert pooling.value(np.stack([table.sum(0)] * 2)).shape == (2,)
        assert np.isnan(pooling.value(np.zeros(pooling.parts)))
        assert torch.equal(found.labelled, found.table()[:, pooling.weight])


def test_constant_map() -> None:
    flat, people = torch.ones(1, 8, 8), torch.rand(1, 8, 8)
    for name, info in all_metrics().items():
        if info.kind == "human" and name != "SSIM":
            assert info.scores(Given(maps=flat, human_maps=people), 1).values.item() == 0
    nothing = metric_named("Spearman").scores(Given(maps=flat, human_maps=flat), 1)
    assert nothing.values.isnan().all()


def test_undeclared_needs_cannot_be_read() -> None:
    metric = Metric("mine", lambda given: given.maps.sum((1, 2)) + given.labels, needs=("masks",))
    with pytest.raises(AttributeError, match="the metric reads labels, which is not listed in its needs"):
        metric.scores(Given(maps=torch.zeros(1, 2, 2), masks=torch.zeros(1, 2, 2)), 1)


def test_wrong_number_of_values_is_rejected() -> None:
    metric = Metric("mine", lambda given: given.maps.mean())
    with pytest.raises(ValueError, match=r"mine returned values of shape \(1,\) for 2 maps"):
        dataclasses.replace(metric, compute=lambda given: given.maps.mean()[None]).scores(
            Given(maps=torch.ones(2, 2, 2)), 2
        )
    uneven = dataclasses.replace(metric, compute=lambda given: Scores(torch.zeros(2), torch.zeros(1, 3)))
    with pytest.raises(ValueError, match="mine returned values"):
        uneven.scores(Given(maps=torch.ones(2, 2, 2)), 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"needs": ("mask",)}, "mine: needs must be among labels, masks, .*, not 'mask'"),
        ({"direction": 0}, "mine: direction must be 1 .* or -1, not 0"),
        ({"name": "a, b"}, "neither comma nor colon: 'a, b'"),
    ],
)
def test_wrong_declarations(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Metric(**{"name": "mine", "compute": lambda given: given.maps, **values})


def test_duplicate_name_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"There is a metric 'SaCo' already, in captum_astro\.metrics\.saco"):
        register(Metric("SaCo", lambda given: given.maps.sum((1, 2))))
    assert metric_named("SaCo").predicted_only
