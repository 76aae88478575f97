"""What is special to the families in `tests.staged_families`; `test_stages` has what they share with others."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import timm
import torch
from torch import nn

from captum_astro import UnsupportedModelError, VTranM, check
from captum_astro.capture.call import Call
from captum_astro.capture.capture import capture
from captum_astro.capture.guard import private
from captum_astro.capture.target import Target
from captum_astro.capture.wanted import Wanted
from captum_astro.layouts import layout_for
from captum_astro.layouts import mvitv2 as mvitv2_layout
from captum_astro.layouts.steps import Scale
from captum_astro.layouts.structure import Merging
from tests.families import build, images
from tests.staged_families import mvitv2


@pytest.mark.parametrize(
    ("make", "way_out"),
    [
        (partial(mvitv2, pool_first=True), "made with pool_first=False and mode='conv' have a layout"),
        (partial(mvitv2, mode="max"), "made with pool_first=False and mode='conv' have a layout"),
    ],
)
def test_models_that_no_name_builds_are_refused(make: partial[nn.Module], way_out: str) -> None:
    with pytest.raises(UnsupportedModelError, match=way_out):
        layout_for(make())


pytestmark = pytest.mark.filterwarnings("ignore:.* mixes tokens where")
_WHOLE = {"kernel_qkv": (1, 1), "stride_q": ((1, 1),) * 2, "stride_kv": ((1, 1),) * 2}


@pytest.mark.parametrize("options", [{"residual_pooling": False}, _WHOLE], ids=["no_queries_added", "nothing_pooled"])
def test_mvitv2_with_fewer_parts(options: dict[str, Any]) -> None:
    report = check(mvitv2(**options).eval().double(), images("mvitv2"))
    assert report.ok, str(report)
    assert bool(report.approximate) == ("stride_q" not in options)


@pytest.mark.parametrize(
    ("kind", "said"), [("q", "The mixture of tokens in stages.0"), ("v", "The reduction to the keys")]
)
def test_wrong_pooling_is_rejected(kind: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = mvitv2_layout._pooled

    def wrong(attn: Any, which: str, *where: Any) -> Merging | None:
        found = real(attn, which, *where)
        return found if which != kind or found is None else replace(found, steps=(*found.steps, Scale(2.0)))

    monkeypatch.setattr(mvitv2_layout, "_pooled", wrong)
    assert not check(build("mvitv2"), images("mvitv2")).ok
    with pytest.raises(UnsupportedModelError, match=said):
        VTranM(build("mvitv2")).attribute(images("mvitv2"), target=1)


@pytest.mark.parametrize("name", timm.list_models(module="crossvit") + timm.list_models(module="coat"))
def test_names_without_a_layout(name: str) -> None:
    """Also in a wrapper; the layer that the reason recommends exists."""
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(UnsupportedModelError, match=r"has no layout: .* TokenGradCAM explains its blocks") as raised:
        layout_for(nn.Sequential(model, nn.Softmax(-1)))
    layer = str(raised.value).split("'")[1]
    assert model.get_submodule(layer) is not None


def test_votes_for_other_classes_are_rejected() -> None:
    model = nn.Sequential(build("volo"), nn.Linear(5, 2).double())
    with pytest.raises(
        UnsupportedModelError, match=r"has 2 classes, but each token of VOLO has 5: .* Explain the model"
    ):
        VTranM(model).attribute(images("volo", 1), target=1)


def test_the_token_that_votes_for_the_class_is_read() -> None:
    """Twice as much is the class token; the target decides which patch."""
    model, x, votes = build("volo"), images("volo", 2), []
    model.aux_head.register_forward_hook(lambda module, args, out: votes.append(out))
    model(x)
    expected = torch.zeros(2, 1 + votes[0].shape[1], dtype=torch.float64)
    expected[:, 0] = 2 / 3
    for image, target in enumerate((4, 0)):
        expected[image, 1 + votes[0][image, :, target].argmax()] = 1 / 3
    with private(build("volo")) as replica:
        call = Call(replica.model, x, Target([4, 0]), layout=layout_for(replica.model))
        assert torch.equal(capture(call, Wanted()).readout, expected)
