from __future__ import annotations

from pathlib import Path

import pytest

from captum_astro.evaluation.run.failures import Failure
from captum_astro.evaluation.run.results import read_run
from captum_astro.evaluation.run.rows import Row
from captum_astro.evaluation.run.store import FORMAT, BenchStore

NO = Failure("ValueError", "no", "method")


def test_unfinished_run_is_read_up_to_its_last_chunk(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no run\.json"):
        read_run(tmp_path)
    store = BenchStore(tmp_path)
    store.begin({"format": FORMAT, "steps": 20})
    with pytest.raises(ValueError, match="no chunk is finished"):
        read_run(tmp_path)
    store.add((0, 3), [Row(30, "x", "vit", "LRP", "SaCo", "predicted", 0.5)], [], {})
    store.add((0, 1), [Row(10, "y", "vit", "LRP", "SaCo", "predicted", None, [1.0, 0.5], NO)], [], {})
    half = tmp_path / "chunks" / "rows-00-000002.parquet"
    half.write_bytes(b"half")
    with pytest.warns(UserWarning, match=f"{half} is damaged"):
        found = read_run(tmp_path)
    assert (found.finished, found.config, len(found.maps)) == (False, {"format": FORMAT, "steps": 20}, 0)
    assert found.left_out == (f"{half} is damaged. It is left out; captum-astro bench, run again, makes it again.",)
    assert found.rows["sample"].tolist() == [10, 30]
    assert found.rows["value"].isna().tolist() == [True, False]
    assert found.rows["error"].isna().tolist() == [False, True]
    assert list(found.rows["curve"][0]) == [1.0, 0.5]
