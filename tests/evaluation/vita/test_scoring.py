from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from captum_astro.data.human import prepare_heatmap
from captum_astro.data.samples import sample_digest
from captum_astro.evaluation.vita.scoring import METRICS, Seen, batched, check_names, prepared, score_table
from captum_astro.metrics.declaration import Given
from tests.evaluation.vita.making import make_samples


def _table(labels: list[int | None], **changed: Any) -> Any:
    """Three samples, the plain model (-1) and setting 7, two methods; the model sees 0, 1, 2, then 1, 1, 2."""
    batch = [s._replace(label=label) for s, label in zip(make_samples(3), labels, strict=True)]
    generator = torch.Generator().manual_seed(1)
    given: dict[str, Any] = {
        "maps": {name: torch.rand(6, 32, 32, generator=generator) for name in ("A", "B")},
        "human": prepared(batch, 32),
        "metrics": ["dice", "ssim"],
    }
    given |= changed
    output = torch.eye(3)[[0, 1, 2, 1, 1, 2]]
    metrics = given.pop("metrics")
    table = score_table(Seen(batch, 10, [-1, 7], output=output, target=torch.tensor([0, 1, 2]), **given), metrics)
    return batch, given, table


def test_one_row_per_setting_sample_method_and_metric() -> None:
    batch, given, table = _table([0, 0, None])
    for method in ("A", "B"):
        for name in ("dice", "ssim"):
            for s, setting in enumerate((-1, 7)):
                rows = table.query(f"method == '{method}' and metric == '{name}' and setting == {setting}")
                assert rows["sample"].tolist() == [10, 11, 12]
                assert rows["name"].tolist() == [sample.name for sample in batch]
                assert rows["digest"].tolist() == [sample_digest(sample) for sample in batch]
                for i in range(3):
                    one = METRICS[name].compute(
                        Given(maps=given["maps"][method][3 * s + i][None], human_maps=given["human"][i][None])
                    )
                    assert rows["value"].iloc[i] == pytest.approx(float(one), abs=1e-12)
    assert len(table) == 2 * 3 * (2 * 2 + 2)


def test_what_the_model_sees() -> None:
    *_, table = _table([0, 0, None])
    own = table[table["method"] == "-"].set_index(["metric", "setting", "sample"])["value"].sort_index()
    assert own["same class", -1].tolist() == [1, 1, 1]
    assert own["same class", 7].tolist() == [0, 1, 1]
    assert own["accuracy", -1].tolist()[:2] == [1, 0]
    assert own["accuracy", 7].tolist()[:2] == [0, 0]
    assert math.isnan(own["accuracy", -1, 12])  # without a label there is nothing to be right about
    assert math.isnan(own["accuracy", 7, 12])
    *_, table = _table([None, None, None])
    assert set(table["metric"]) == {"dice", "ssim", "same class"}


def test_constant_map_scores_zero() -> None:
    human = prepared(make_samples(3), 32)
    human[2] = 0.5
    maps = {"A": torch.full((6, 32, 32), 0.3)}
    *_, table = _table([0, 0, 0], maps=maps, human=human, metrics=["spearman"])
    values = table[table["metric"] == "spearman"].set_index(["setting", "sample"])["value"]
    for setting in (-1, 7):
        assert values[setting, 10] == values[setting, 11] == 0
        assert math.isnan(values[setting, 12])  # where the human map is flat too, the score is undefined


def test_names() -> None:
    check_names("metric", ["dice", "iou"], METRICS)
    with pytest.raises(ValueError, match=r"no metric 'auc' here\. Known: spearman, dice, iou, ssim\."):
        check_names("metric", ["dice", "auc"], METRICS)
    with pytest.raises(ValueError, match=r"no method None here\. Known: A, B\."):
        check_names("method", [], iter("AB"))


def test_batches() -> None:
    samples = make_samples(5)
    found = list(batched(iter(samples), 2))
    assert [[sample.name for sample in batch] for batch in found] == [
        ["sample 0", "sample 1"],
        ["sample 2", "sample 3"],
        ["sample 4"],
    ]
    assert list(batched([], 2)) == []


def test_human_maps_are_prepared_at_one_size() -> None:
    batch = make_samples(2)
    batch[1] = batch[1]._replace(human=torch.rand(11, 17))
    found = prepared(batch, 24)
    assert found.shape == (2, 24, 24)
    torch.testing.assert_close(found[1], prepare_heatmap(batch[1].human, 24))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_human_maps_that_are_not_finite(value: float) -> None:
    batch = make_samples(2)
    batch[1].human[3, 4] = value
    with pytest.raises(ValueError, match="human map of sample 1 holds NaN or infinite"):
        prepared(batch, 32)
