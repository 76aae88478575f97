from __future__ import annotations

from html import unescape

import numpy as np

from captum_astro.app.charts import curve_chart, verdict
from captum_astro.app.handlers import families
from captum_astro.app.networks import Networks
from captum_astro.app.wish import ModelWish
from captum_astro.models.bundled import PLAIN
from tests.app.making import decoded, made


def test_the_curves_are_drawn(networks: Networks) -> None:
    found = made(networks, methods=("VTranM", "RawAttention"))
    assert len(found.curves) == 2
    chart = curve_chart(found)
    picture = decoded(chart.split('src="')[1].split('"')[0])
    assert np.asarray(picture.convert("L")).std() > 10


def test_verdict_is_that_of_check_methods(networks: Networks) -> None:
    report = networks.report(ModelWish(PLAIN))
    text = unescape(verdict(report))
    for one in report.outcomes:
        assert f"{one.method}</td><td>{one.status}</td>" in text
    assert {name for names in families().values() for name in names} == {one.method for one in report.outcomes}
