from __future__ import annotations

import torch

from captum_astro import check_methods
from captum_astro.support.outcome import Outcome
from captum_astro.support.report import MethodsReport
from tests.families import build, images


def test_a_model_with_an_approximate_part() -> None:
    x = images("pvt_v2", 1, torch.float32)
    report = check_methods(build("pvt_v2", torch.float32), x, ["VTranM", "TokenGradCAM", "LRP"])
    assert report.ok
    assert report.image == tuple(x.shape)
    status = {one.method: one.status for one in report.outcomes}
    assert status == {"VTranM": "approximate", "TokenGradCAM": "exact", "LRP": "exact"}
    assert all(one.cost is not None and one.cost > 0.3 for one in report.outcomes)
    text = str(report)
    assert max(map(len, text.splitlines())) <= 80
    assert "VTranM: approximate. stages.0.blocks.0.mlp" in text
    assert "Use instead" not in text


def _report(**statuses: str) -> MethodsReport:
    return MethodsReport("M", (1, 3, 8, 8), 1.0, tuple(Outcome(n, s, s) for n, s in statuses.items()))


def test_what_to_use_instead_is_of_the_same_family_if_possible() -> None:
    works = {"TokenGradCAM": "exact"}
    assert _report(VTranM="refused", ATTCAT="exact", **works).instead("VTranM") == ["ATTCAT"]
    assert _report(VTranM="refused", ATTCAT="approximate", **works).instead("VTranM") == ["ATTCAT"]
    assert _report(VTranM="refused", ATTCAT="failed", **works).instead("VTranM") == ["TokenGradCAM"]
    nothing = _report(VTranM="refused", ATTCAT="refused")
    assert nothing.instead("VTranM") == []
    assert not nothing.ok
    assert "VTranM, ATTCAT: refused. refused\nUse instead: another model." in str(nothing)
    assert not _report(VTranM="exact", LRP="failed").ok
