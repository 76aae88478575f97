from __future__ import annotations

import numpy as np
import pytest
import torch

from captum_astro.evaluation.specification.metrics import METRICS, available, metrics_of, pooled_accuracy, pooled_iou
from captum_astro.metrics import counts, pooled_mean_iou, pooled_pixel_accuracy


def test_metrics_by_name() -> None:
    assert metrics_of("all") == tuple(METRICS)
    assert metrics_of(["ssim", "Segmentation"]) == ("pixel accuracy", "mIoU", "mAP", "SSIM")
    with pytest.raises(ValueError, match="no metric 'iuo'"):
        metrics_of("iuo")
    assert available(["accuracy", "SaCo", "mIoU"], {"label"}) == (("accuracy", "SaCo"), {"mIoU": "mask"})


@pytest.mark.parametrize("kind", ["auc", "perturbation", "human", "AUC"])
def test_a_word_for_several_is_all_of_them(kind: str) -> None:
    wanted = {
        "perturbation": ("positive AUC", "negative AUC", "AOPC", "LOdds"),
        "auc": ("positive AUC", "negative AUC"),
    }
    assert metrics_of(kind) == wanted.get(kind.lower(), ("Spearman", "Dice", "IoU", "SSIM"))


def test_pooled_as_the_functions_on_tensors() -> None:
    torch.manual_seed(0)
    found = counts(torch.rand(5, 6, 7), torch.randint(-1, 2, (5, 6, 7)))
    table = torch.cat([found.correct[:, None], found.labelled[:, None], found.intersection, found.union], 1).numpy()
    assert pooled_accuracy(table) == pytest.approx(pooled_pixel_accuracy(found), abs=1e-15)
    assert pooled_iou(table) == pytest.approx(pooled_mean_iou(found), abs=1e-15)
    assert pooled_iou(np.stack([table, table])).shape == (2,)
    assert np.isnan(pooled_accuracy(np.zeros((2, 6))))


def test_lower_is_better_of_two() -> None:
    assert {name for name, info in METRICS.items() if info.direction < 0} == {"positive AUC", "LOdds"}
