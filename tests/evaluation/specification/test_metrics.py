from __future__ import annotations

import pytest

from captum_astro.evaluation.specification.metrics import lacking, metrics_of
from captum_astro.metrics.registry import all_metrics


def test_metrics_by_name() -> None:
    on_request = {name for name, metric in all_metrics().items() if metric.on_request}
    assert metrics_of("all") == tuple(name for name in all_metrics() if name not in on_request)
    assert set(metrics_of(sorted(on_request))) == on_request
    assert metrics_of(["ssim", "Segmentation"]) == ("pixel accuracy", "mIoU", "mAP", "SSIM")
    with pytest.raises(ValueError, match="no metric 'iuo'"):
        metrics_of("iuo")
    assert lacking(["accuracy", "SaCo", "mIoU", "Dice"], {"labels"}) == {"mIoU": "masks", "Dice": "human_maps"}


@pytest.mark.parametrize("kind", ["auc", "perturbation", "human", "AUC"])
def test_kind_selects_all_of_its_metrics(kind: str) -> None:
    wanted = {
        "perturbation": (
            "average drop", "average increase", "deletion", "insertion", "ABPC", "positive AUC", "negative AUC", "AOPC",
            "LOdds",
        ),
        "auc": ("positive AUC", "negative AUC"),
    }  # fmt: skip
    assert metrics_of(kind) == wanted.get(kind.lower(), ("Spearman", "Dice", "IoU", "SSIM"))


@pytest.mark.parametrize(
    ("kind", "metrics"),
    [
        ("robustness", ("max-sensitivity",)),
        ("randomisation", ("cascading randomisation", "layer randomisation")),
        ("complexity", ("sparseness",)),
    ],
)
def test_a_kind_of_costly_metrics_selects_them(kind: str, metrics: tuple[str, ...]) -> None:
    assert metrics_of(kind) == metrics


@pytest.mark.parametrize(
    ("word", "near"),
    [("average_drop", "average drop"), ("sparsness", "sparseness"), ("randomization", "randomisation")],
)
def test_an_unknown_metric_is_answered_with_near_names(word: str, near: str) -> None:
    with pytest.raises(ValueError, match=rf"There is no metric '{word}'\. .*, or all\. Did you mean {near}"):
        metrics_of(word)
