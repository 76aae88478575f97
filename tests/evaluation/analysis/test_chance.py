from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from captum_astro.evaluation.analysis import summary
from tests.evaluation import synthetic


def _row(method: str, metric: str, value: float) -> dict[str, object]:
    return {"sample": 0, "name": "0", "model": "vit", "method": method, "metric": metric, "explained": "predicted",
            "value": value, "curve": None, "error": None}  # fmt: skip


def test_chance_levels() -> None:
    rows = synthetic.rows(10, failing=("LRP", 3))
    table = summary(rows, bootstrap=10).set_index(["metric", "explained", "method"])
    share = rows[rows["metric"] == "object share"].set_index("sample")["value"]
    chance = table["chance"]
    assert chance["energy inside", "true", "VTranM"] == pytest.approx(share.mean(), abs=1e-12)
    assert chance["energy inside", "true", "LRP"] == pytest.approx(share.drop(3).mean(), abs=1e-12)
    assert chance["pointing game", "predicted", "VTranM"] == pytest.approx(share.mean(), abs=1e-12)
    own = rows[(rows["metric"] == "mIoU") & (rows["method"] == "VTranM") & (rows["explained"] == "true")]
    labelled = own.set_index("sample")["curve"].map(lambda counts: counts[1])
    s = sum(labelled[i] * share[i] for i in share.index) / labelled.sum()
    # of a coin's mask, half of the object and half of the rest are marked
    iou = (0.5 * s / (s + 0.5 * (1 - s)) + 0.5 * (1 - s) / (1 - s + 0.5 * s)) / 2
    assert chance["mIoU", "true", "VTranM"] == pytest.approx(iou, abs=1e-12)
    table, chance = table.sort_index(), chance.sort_index()
    random = table.loc[("positive AUC", "true", "Random"), "mean"]
    assert (chance["positive AUC", "true"] == random).all()
    assert chance["SaCo", "predicted", "LRP"] == 0
    assert np.isnan(chance["SSIM", "true", "LRP"])
    without = summary(rows[~rows["method"].isin(["Random"])], bootstrap=10).set_index("metric")["chance"]
    assert without["AOPC"].isna().all()


def test_coin_flip_iou_equals_the_chance_level() -> None:
    rng = np.random.default_rng(0)
    mask, coin = rng.random(400_000) < 0.2, rng.random(400_000) < 0.5
    both = [(mask & coin).sum() / (mask | coin).sum(), (~mask & ~coin).sum() / (~mask | ~coin).sum()]
    counts = [np.r_[(mask == coin).sum(), mask.size, (~mask & ~coin).sum(), (mask & coin).sum(), (~mask | ~coin).sum(),
                    (mask | coin).sum()]]  # fmt: skip
    rows = pd.concat([
        pd.DataFrame([_row("coin", "mIoU", 0.3)]).assign(curve=counts),
        pd.DataFrame([_row("-", "object share", mask.mean())]).assign(explained="-"),
    ])  # fmt: skip
    row = summary(rows, bootstrap=5).set_index("metric").loc["mIoU"]
    assert row["mean"] == pytest.approx(np.mean(both), abs=1e-12)
    assert row["chance"] == pytest.approx(row["mean"], abs=2e-3)


def test_coin_flip_and_random_order_have_the_known_chance_levels() -> None:
    import torch

    from captum_astro.metrics import average_precision, dice, iou, pixel_accuracy, saco_score

    torch.manual_seed(0)
    maps, masks = torch.rand(4, 200, 200), (torch.rand(4, 200, 200) < 0.2).to(torch.int8)
    found = {
        "pixel accuracy": pixel_accuracy(maps, masks),
        "mAP": average_precision(maps, masks),
        "Dice": dice(maps, torch.rand(4, 200, 200)),
        "IoU": iou(maps, torch.rand(4, 200, 200)),
        "SaCo": saco_score(torch.rand(4000, 10).sort(1, descending=True).values, torch.rand(4000, 10)),
    }
    rows = pd.DataFrame([_row("LRP", name, 0.5) | {"curve": [1, 2, 1, 1, 1, 1]} for name in found])
    levels = summary(rows, bootstrap=5).set_index("metric")["chance"]
    for name, values in found.items():
        assert values.mean().item() == pytest.approx(levels[name], abs=0.02), name
