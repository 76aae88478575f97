from __future__ import annotations

import pytest

from captum_astro import explainers
from captum_astro.evaluation.specification.methods import methods_of


def test_all_includes_every_method_that_is_not_on_request_and_random() -> None:
    usual = [explainer.name for explainer in explainers() if not explainer.on_request]
    assert [method.name for method in methods_of("all")] == [*usual, "Random"]
    assert "ViTCX" not in usual
    assert [method.name for method in methods_of("all,ViTCX:distance=0.2")][-1] == "ViTCX:distance=0.2"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("VTranM,Nothing", "no method 'Nothing'"),
        ("VTranM:gamma=1", "VTranM has no option 'gamma=1'. Options: output"),
        ("VTranM:output", "no option 'output'. Expected NAME=VALUE"),
        ("VTranM:output=bogus", "VTranM: output must be probability or logit, not 'bogus'"),
        ("ViTAGradCAM:k=six", "ViTAGradCAM: k must be a whole number, not 'six'"),
        ("VTranM:target=1", "no option 'target=1'"),
        ("VTranM,vtranm", "VTranM is given twice"),
        ("all:output=logit", "all takes no options"),
        ("Random:seed=1", "Random takes no options"),
        ("", "no method ''"),
    ],
)
def test_invalid_names(words: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods_of(words)
