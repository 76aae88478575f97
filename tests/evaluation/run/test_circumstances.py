from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from captum_astro.devices import machine
from captum_astro.evaluation.run.bench import run_bench
from captum_astro.evaluation.run.results import read_run
from captum_astro.evaluation.specification import ModelChoice
from captum_astro.models.loading import load_model
from captum_astro.storage import RECORD
from tests.evaluation.making import NAME, config


def test_what_is_recorded(tmp_path: Path) -> None:
    torch.save(load_model(NAME, pretrained=False).state_dict(), tmp_path / "w.pt")
    made = config("Random", "segmentation", limit=1, models=(ModelChoice(NAME, tmp_path / "w.pt"),))
    run_bench(made, tmp_path / "out")
    found = read_run(tmp_path / "out").config["made"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", found.pop("date"))
    assert found.pop("machine") == machine()
    assert found == {"checkpoints": ["w.pt"], "classes": [None], "ema": True, "preset": None}
    assert str(tmp_path) not in (tmp_path / "out" / RECORD).read_text()


@pytest.mark.parametrize("before", [{"date": "2001-01-01", "machine": "another"}, None])
def test_a_run_goes_on_another_day_and_machine(tmp_path: Path, before: dict[str, str] | None) -> None:
    made = config("Random", "segmentation", limit=4)
    run_bench(made, tmp_path)
    file, said = tmp_path / RECORD, []
    record = json.loads(file.read_text())
    if before is None:
        del record["made"]  # of an earlier version
    else:
        record["made"] |= before
    file.write_text(json.dumps(record))
    (tmp_path / "results.parquet").unlink()
    next(tmp_path.glob("chunks/rows-00-000001*")).unlink()
    outcome = run_bench(made, tmp_path, say=said.append)
    assert (outcome.computed, outcome.missing) == (1, 0)
    assert read_run(tmp_path).config == record
