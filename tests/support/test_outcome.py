from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from captum_astro import AttnLRP, TokenGradCAM, explainers
from captum_astro.attr.explainers import explainers_named
from captum_astro.capture.conservation import Conservation
from captum_astro.support.outcome import largest, outcomes
from tests.families import build, images


def test_every_method_on_a_plain_transformer() -> None:
    model, x = build("cls"), images("cls", 1)
    found = {one.method: one for one in outcomes(model, x, explainers())}
    assert list(found) == [explainer.name for explainer in explainers()]
    assert {one.status for one in found.values()} == {"exact"}
    assert {name for name, one in found.items() if one.conserved is not None} == {"AttnLRP", "ConservativeLRP", "LRP"}
    target = int(model(x).argmax())
    expected = AttnLRP(model).attribute(x, target=target).sum() / model(x)[0, target]
    assert found["AttnLRP"].conserved == pytest.approx(expected.item())


def test_the_rule_of_an_approximate_part_is_the_reason() -> None:
    methods = explainers_named(["VTranM", "AttnLRP"]).values()
    carried, followed = outcomes(build("pvt_v2"), images("pvt_v2", 1), methods)
    assert (carried.status, followed.status) == ("approximate", "exact")
    assert "stages.0.blocks.0.mlp" in carried.reason


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda x: x[:, :, 1:], "The map has the shape (1, 3, 63, 64), the images (1, 3, 64, 64)."),
        (lambda x: x * float("nan"), "The map is not finite."),
        (lambda x: x * 0, "The map is zero everywhere."),
        (
            lambda x: x / x.max() * 3e7,
            "A pixel has 3e+07 times the output; in a right map it stays below 1000000 times.",
        ),
        (lambda x: x[9], "IndexError: index 9 is out of bounds for dimension 0 with size 1"),
    ],
)
def test_what_is_no_map_has_failed(monkeypatch: pytest.MonkeyPatch, wrong: object, reason: str) -> None:
    monkeypatch.setattr(TokenGradCAM, "attribute", lambda self, inputs, target=None: wrong(inputs))
    model: nn.Module = timm.create_model("resnet10t").eval()
    with torch.no_grad():
        model.get_classifier().weight.zero_()  # the output is the bias: none exceeds 1
    (found,) = outcomes(model, torch.rand(1, 3, 64, 64), explainers_named(["TokenGradCAM"]).values())
    assert (found.status, found.reason) == ("failed", reason)


@pytest.mark.parametrize(("arrived", "status"), [(-99.0, "exact"), (101.0, "failed"), (-101.0, "failed")])
def test_relevance_far_above_the_output_has_failed(
    monkeypatch: pytest.MonkeyPatch, arrived: float, status: str
) -> None:
    monkeypatch.setattr(AttnLRP, "conservation", lambda *args: Conservation(1.0, arrived, 0.0))
    (found,) = outcomes(build("cls"), images("cls", 1), explainers_named(["AttnLRP"]).values())
    assert found.status == status
    if status == "failed":
        assert found.reason.startswith(f"The map sums to {arrived:.3g} times the explained output; a right one")


def test_the_largest_output_of_every_form() -> None:
    output = torch.zeros(2, 3, 4)
    output[0, 1, 2] = output[1, 2, 0] = 5
    assert largest(output) == [(1, 2), (2, 0)]
    assert largest(output[:, 1]) == [2, 0]
    assert largest(output[:, 1, 2]) is None
