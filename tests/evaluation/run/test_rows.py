from __future__ import annotations

import pytest

from captum_astro.evaluation.run.failures import Failure
from captum_astro.evaluation.run.rows import MAPS, ORDER, SCHEMA, MapRow, Row, map_table, table

ROW = Row(0, "image 0", "vit", "LRP", "SaCo", "predicted", 0.5)


def test_missing_and_non_finite_values() -> None:
    found = table([ROW._replace(value=value) for value in (float("nan"), float("inf"), None, 1.0)])
    assert found["value"].to_pylist() == [None, None, None, 1.0]
    assert table([]).schema.equals(SCHEMA)


def test_a_failure_is_a_line_of_text() -> None:
    row = ROW._replace(value=None, failure=Failure("OSError", "cut short", "sample"))
    assert table([row, ROW])["error"].to_pylist() == ["OSError: cut short", None]


def test_sorted_and_as_given() -> None:
    rows = [
        ROW._replace(sample=sample, method=method, curve=curve)
        for sample, method, curve in ((10, "-", None), (9, "LRP", [0.5, 1.0]), (9, "ATTCAT", None))
    ]
    found = table(rows).to_pandas()
    assert list(zip(found["sample"], found["method"], strict=True)) == [(9, "ATTCAT"), (9, "LRP"), (10, "-")]
    assert found["curve"][1].tolist() == [0.5, 1.0]
    assert found["curve"][0] is None
    assert set(ORDER) < set(found)


def test_maps() -> None:
    assert map_table([]).schema.equals(MAPS)
    found = map_table([MapRow(1, "a", "vit", "LRP", "predicted", 1, 2, b"abcd")]).to_pylist()
    assert found[0]["data"] == b"abcd"


def test_row_without_a_name_is_rejected() -> None:
    with pytest.raises((TypeError, ValueError)):
        table([ROW._replace(sample="first")])
