from __future__ import annotations

import re
from pathlib import Path

import pytest

import captum_astro
from captum_astro.attr._base import Explanation
from captum_astro.attr.explainers import configured, explainers, explainers_named


def test_every_exported_method_once_in_order() -> None:
    names = [explainer.name for explainer in explainers()]
    exported = {
        name
        for name in dir(captum_astro)
        if isinstance(getattr(captum_astro, name), type) and issubclass(getattr(captum_astro, name), Explanation)
    }
    assert names == sorted(exported)
    stub = Path(captum_astro.__file__).with_suffix(".pyi").read_text()
    assert names == sorted(re.findall(r"^from \.attr\.\w+ import ([A-Z]\w+) as", stub, re.MULTILINE))
    for explainer in explainers():
        assert explainer.method is getattr(captum_astro, explainer.name)
        assert explainer.family in ("attention", "gradient", "perturbation", "propagation")
        assert explainer.source


def test_by_name() -> None:
    assert list(explainers_named(["LRP", "vtranm", "lrp"])) == ["LRP", "VTranM"]
    assert list(explainers_named(["ALL"])) == [one.name for one in explainers() if not one.on_request]
    assert list(explainers_named(["vitcx"])) == [one.name for one in explainers() if one.on_request] == ["ViTCX"]
    for wanted in (["VTranN"], ["all", "LRP"]):
        with pytest.raises(
            ValueError, match=r"There is no method '(VTranN|all)'\. Methods: AGCAM, ATTCAT, .* or 'all'"
        ):
            explainers_named(wanted)


def test_the_name_in_the_paper() -> None:
    with pytest.warns(UserWarning, match=r"^TokenTM is VTranM: its name in the paper\.$"):
        assert configured("TokenTM:output=logit").name == "VTranM:output=logit"


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("gradcam", "TokenGradCAM"), ("Grad-CAM++", "TokenGradCAMPlusPlus"),
        ("rollout", "AttentionRollout"), ("VTramM", "VTranM"), ("transformer_mm", "TransformerMM"),
    ],
)  # fmt: skip
def test_near_names(word: str, meant: str) -> None:
    with pytest.raises(ValueError, match=rf"no method '{re.escape(word)}'\. .* Did you mean {meant}\?$"):
        explainers_named([word])
