from __future__ import annotations

import pytest

from captum_astro.evaluation.specification.methods import methods_of
from captum_astro.evaluation.specification.presets import preset
from captum_astro.evaluation.specification.published import PUBLISHED, published


@pytest.mark.parametrize("of", PUBLISHED, ids="/".join)
def test_what_a_paper_prints_is_what_its_preset_runs(of: tuple[str, str]) -> None:
    table = preset(of[0])
    [part] = table.chosen(of[1])
    methods = {method.name for method in methods_of(table.methods)} - {"Random"}
    for model in table.models or ("vit",):
        found = published(of, model)
        assert set(part.metrics) - {"accuracy", "object share"} <= {metric for metric, _ in found}
        for scores in found.values():
            assert scores.keys() <= methods
            assert scores.keys() == methods or of[0] == "vtranm-table3"  # of which three methods are at hand


@pytest.mark.parametrize(
    ("of", "model", "score", "method", "value"),
    [
        (("vtranm-table1", "cifar10"), "mine", ("positive AUC", "true"), "VTranM", 36.48),
        (("vtranm-table1", "cifar100"), "mine", ("negative AUC", "predicted"), "ATTCAT", 23.52),
        (("vtranm-table2", "segmentation"), "deit_tiny_patch16_224", ("mIoU", "predicted"), "LRP", 32.82),
        (("vtranm-table2", "perturbation"), "deit_tiny_patch16_224", ("positive AUC", "true"), "VTranM", 15.09),
        (("vtranm-table3", "perturbation"), "vit_large_patch16_224", ("LOdds", "predicted"), "TransformerMM", -5.623),
        (("vtranm-table4", "perturbation"), "vit", ("negative AUC", "predicted"), "VTranM:components=", 55.25),
    ],
)
def test_figures_as_printed(of, model: str, score: tuple[str, str], method: str, value: float) -> None:
    assert published(of, model)[score][method] == value


def test_no_table_for_other_models_and_presets() -> None:
    assert published(("vtranm-table3", "perturbation"), "swin_tiny_patch4_window7_224") == {}
    assert published(("vita-table1", "clickme"), "vit_base_patch16_224") == {}
