"""Methods by rank."""

from __future__ import annotations

import pandas as pd
import pytest

from captum_astro.evaluation.analysis import comparisons
from captum_astro.evaluation.report.order import by_rank
from captum_astro.metrics.registry import all_metrics
from tests.evaluation import synthetic

DESCRIBING = {name for name, info in all_metrics().items() if not info.ranks}


def _table(metric: str, **scores: float) -> pd.DataFrame:
    return pd.DataFrame({"metric": metric, "explained": "-", "method": list(scores), "mean": list(scores.values())})


def test_what_only_describes_maps_ranks_nothing() -> None:
    assert {"sparseness", "cascading randomisation", "layer randomisation"} == DESCRIBING
    saco, sparse = _table("SaCo", LRP=0.1, VTranM=0.2), _table("sparseness", LRP=0.9, VTranM=0.1, Random=0.8)
    assert by_rank(pd.concat([sparse, saco]), "mean") == ["VTranM", "LRP", "Random"]
    assert by_rank(sparse, "mean") == ["LRP", "VTranM", "Random"]
    assert by_rank(saco.head(0), "mean") == []


@pytest.mark.parametrize("against", [None, "LRP"])
def test_it_is_not_compared(against: str | None) -> None:
    table = comparisons(synthetic.rows(8), against, bootstrap=20)
    assert not DESCRIBING & set(table["metric"])
    assert "SaCo" in set(table["metric"])
