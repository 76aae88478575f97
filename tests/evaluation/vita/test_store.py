from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch import nn

from captum_astro.evaluation.vita.results import PLAIN
from captum_astro.evaluation.vita.settings import Setting
from captum_astro.evaluation.vita.store import Store
from captum_astro.functional.astrocyte import Modulation


def _batch(first: int, count: int, value: float = 0.5) -> pd.DataFrame:
    numbers = [first + i for i in range(count)]
    shared = {"name": [f"s{i}" for i in numbers], "digest": [f"d{i}" for i in numbers], "setting": PLAIN}
    control = {"method": "A", "control": "", "width": 0.0}
    return pd.DataFrame({"sample": numbers, **shared, **control, "metric": "dice", "value": value})


def test_a_store_in_memory() -> None:
    store = Store(None, nn.Linear(2, 2), [Setting(Modulation())], {})
    store.add(0, _batch(0, 2))
    assert not store.has(0, ["d0", "d1"])  # nothing goes on without a folder
    store.add(1, _batch(2, 1))
    assert store.results(1).scores["sample"].tolist() == [0, 1]
    assert store.results(2).scores["sample"].tolist() == [0, 1, 2]
    assert store.results(2).settings == [Setting(Modulation())]


def test_a_store_in_a_folder(tmp_path: Path) -> None:
    model, settings, run = nn.Linear(2, 2), [Setting(Modulation())], {"size": 32}
    folder = tmp_path / "new" / "folder"
    store = Store(folder, model, settings, run)
    assert not store.has(0, ["d0", "d1"])
    store.add(0, _batch(0, 2))
    again = Store(folder, model, settings, run)
    assert again.has(0, ["d0", "d1"])
    assert not again.has(0, ["d0", "d1", "d2"])  # it was shorter
    with pytest.raises(ValueError, match="results of other samples"):
        again.has(0, ["d0", "dx"])
    pd.testing.assert_frame_equal(again.results(1).scores, _batch(0, 2).drop(columns=["control", "width"]))
    for changed, what in (({"size": 16}, "size"), ({}, "size"), ({"size": 32, "more": 1}, "more")):
        with pytest.raises(ValueError, match=rf"another run \({what} differ\)"):
            Store(folder, model, settings, changed)
    with pytest.raises(ValueError, match=r"another run \(weights differ\)"):
        Store(folder, nn.Linear(2, 2), settings, run)
    with pytest.raises(ValueError, match=r"another run \(settings differ\)"):
        Store(folder, model, [Setting(Modulation(k=4))], run)


def test_controls_are_apart(tmp_path: Path) -> None:
    store = Store(tmp_path, nn.Linear(2, 2), [], {})
    own, control = _batch(0, 2), _batch(0, 2, value=0.25).assign(control="blurred", width=0.1)
    store.add(0, pd.concat([own, control]))
    found = store.results(1)
    pd.testing.assert_frame_equal(found.scores, own.drop(columns=["control", "width"]))
    pd.testing.assert_frame_equal(found.controls, control)


def test_failed_batch_write_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, nn.Linear(2, 2), [], {})

    def full(table: pa.Table, file: Path) -> None:
        file.write_bytes(b"PAR1")
        raise OSError("no space left")

    monkeypatch.setattr("captum_astro.evaluation.vita.store.write_table", full)
    with pytest.raises(OSError, match="no space left"):
        store.add(0, _batch(0, 2))
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]
    assert not store.has(0, ["d0", "d1"])


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(OSError, match="taken"):
        Store(tmp_path / "taken", nn.Linear(2, 2), [], {})


def _rewritten(folder: Path) -> None:
    """A value is another one, in a sound file."""
    file = folder / "scores-000000.parquet"
    found = pq.read_table(file)
    place = found.column_names.index("value")
    pq.write_table(found.set_column(place, "value", pa.array([1.0] * len(found))), file)


def _unsealed(folder: Path) -> None:
    file = folder / "scores-000000.parquet"
    pq.write_table(pq.read_table(file).replace_schema_metadata(None), file)


def _of_another_batch(folder: Path) -> None:
    (folder / "scores-000000.parquet").write_bytes((folder / "scores-000001.parquet").read_bytes())


def _of_another_run(folder: Path) -> None:
    other = Store(folder / "other", nn.Linear(2, 2), [], {"size": 64})
    other.add(0, _batch(0, 2))
    (folder / "other" / "scores-000000.parquet").replace(folder / "scores-000000.parquet")


@pytest.mark.parametrize("change", [_rewritten, _unsealed, _of_another_batch, _of_another_run])
def test_scores_that_are_not_what_was_written_are_computed_again(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    store = Store(tmp_path, nn.Linear(2, 2), [], {})
    store.add(0, _batch(0, 2))
    store.add(1, _batch(0, 2))
    assert store.has(0, ["d0", "d1"])
    change(tmp_path)
    assert not store.has(0, ["d0", "d1"])
