"""The form of the Hugging Face Hub: what its readers find in it, and that its record is enough to run it again."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

import captum_astro
from captum_astro.evaluation.report import write_hub
from captum_astro.evaluation.run import run_bench
from captum_astro.evaluation.specification import BenchConfig, ModelChoice, methods_of, metrics_of
from tests.commands import run_command
from tests.evaluation import synthetic

RECORD = {"configuration": {"data": "hf:owner/pets:test", "seed": 3}, "models": {"vit": {"weights": "ab12"}}}


def _run(folder: Path, record: dict[str, Any] = RECORD, **rows: Any) -> Path:
    made = synthetic.rows(4, metrics=("SaCo", "accuracy"), **rows)
    return synthetic.write(folder, made, synthetic.maps(1, ("LRP",)), record)


def _front(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of a small run, and nothing else of it."""
    folder = tmp_path_factory.mktemp("run")
    config = BenchConfig(
        (ModelChoice("scenes_vit_tiny_patch4_64"),), methods_of("RawAttention,VTranM:output=logit,Random"), "scenes",
        metrics_of("saco,energy inside"), limit=2, chunk_size=1, seed=4,
    )  # fmt: skip
    run_bench(config, folder / "results")
    write_hub(folder / "results", folder / "hub", 10)
    return folder / "hub"


@pytest.mark.parametrize("only", [None, ("VTranM:output=logit", "energy inside")], ids=["all rows", "one row"])
def test_a_stranger_reproduces_the_rows_from_the_record(
    exported: Path, tmp_path: Path, only: tuple[str, str] | None
) -> None:
    command = re.search(r"```console\n\$ (.*?)\n```", (exported / "README.md").read_text(), re.DOTALL)
    words = shlex.split(command[1].replace("\\\n", ""))
    assert words[:2] == ["captum-astro", "bench"]
    wanted = pq.read_table(exported / _front(exported)["configs"][0]["data_files"][0]["path"]).to_pandas()
    wanted["method"] += wanted["options"].where(wanted["options"] == "", ":" + wanted["options"])
    if only is not None:
        words[words.index("-m") + 1] = only[0]
        words[words.index("--metrics") + 1] = only[1]
        wanted = wanted[(wanted["method"] == only[0]) & (wanted["metric"] == only[1])]
    environment = {"PYTHONPATH": str(Path(captum_astro.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "captum_astro", *words[1:]], cwd=tmp_path, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = pd.read_parquet(tmp_path / "results" / "results.parquet")
    assert len(found) == len(wanted) > 0
    keys = ["model", "method", "metric", "explained"]
    both = found.merge(wanted, left_on=[*keys, "sample"], right_on=[*keys, "image"], suffixes=("", " recorded"))
    assert len(both) == len(wanted)
    assert np.abs(both["value"] - both["value recorded"]).max() < 5e-4
    assert both["value"].nunique() > 1


def test_the_record_names_versions_machine_and_seed(exported: Path) -> None:
    block = yaml.safe_load((exported / "README.md").read_text().split("```yaml\n")[1].split("```")[0])
    assert block["seed"] == 4
    assert block["images"] == 2
    assert block["machine"].endswith(" cores")
    assert {"torch", "timm", "captum_astro", "python"} <= set(block["versions"])
    assert re.fullmatch("[0-9a-f]{16}", block["models"]["scenes_vit_tiny_patch4_64"]["weights"])


def test_details(tmp_path: Path) -> None:
    methods = ("LRP", "VTranM:components=:output=logit")
    write_hub(_run(tmp_path / "run", methods=methods, failing=("LRP", 2)), tmp_path / "hub", 5)
    table = pq.read_table(tmp_path / "hub" / "results" / "details.parquet")
    assert not table.schema.metadata  # by which pandas' own would be meant
    rows = table.to_pandas()
    assert set(zip(rows["method"], rows["options"], strict=True)) == {
        ("LRP", ""), ("VTranM", "components=:output=logit"), ("-", ""),
    }  # fmt: skip
    failed = rows[rows["error"].notna()]
    assert set(zip(failed["method"], failed["image"], failed["name"], strict=True)) == {("LRP", 2, "image-2.png")}
    assert failed["value"].isna().all()
    given = pd.read_parquet(tmp_path / "run" / "results.parquet")
    assert rows["value"].equals(given["value"])


def test_results_for_the_page_of_a_model(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", models=("vit", "a/b", ".."))
    files = write_hub(run, tmp_path / "hub", 5)
    rows = pd.read_parquet(run / "results.parquet")
    folders = sorted(path.name for path in (tmp_path / "hub" / "models").iterdir())
    assert folders == ["a-b", "model", "vit"]
    assert all(tmp_path / "hub" in file.resolve().parents for file in files)
    inside = tmp_path / "hub" / "models" / "a-b" / ".eval_results"
    assert sorted(file.stem for file in inside.iterdir()) == ["AttentionRollout", "LRP", "Random", "VTranM", "model"]
    found = yaml.safe_load((inside / "LRP.yaml").read_text())
    own = rows[(rows["model"] == "a/b") & (rows["method"] == "LRP") & (rows["metric"] == "SaCo")]
    assert [one["dataset"] for one in found] == [{"id": "owner/pets", "task_id": "saco-predicted"}]
    assert found[0]["value"] == pytest.approx(own["value"].mean(), abs=1e-12)
    assert found[0]["notes"].startswith("LRP, 4 images, 95 % interval ")


@pytest.mark.skipif(
    not hasattr(huggingface_hub, "parse_eval_result_entries"), reason="huggingface_hub is too old to read the results"
)
def test_the_hub_reads_its_results(tmp_path: Path) -> None:
    write_hub(_run(tmp_path / "run"), tmp_path / "hub", 5)
    for file in (tmp_path / "hub" / "models" / "vit" / ".eval_results").iterdir():
        given = yaml.safe_load(file.read_text())
        entries = huggingface_hub.parse_eval_result_entries(given)
        assert huggingface_hub.eval_result_entries_to_yaml(entries) == given
    card = huggingface_hub.DatasetCard.load(tmp_path / "hub" / "README.md")
    assert card.data.license is None
    assert "captum-astro" in card.data.tags


@pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="the Hub's library, datasets, is missing")
def test_datasets_reads_the_rows(tmp_path: Path) -> None:
    import datasets

    write_hub(_run(tmp_path / "run"), tmp_path / "hub", 5)
    rows = datasets.load_dataset(str(tmp_path / "hub"), split="test", cache_dir=str(tmp_path / "cache"))
    assert rows.num_rows == len(pd.read_parquet(tmp_path / "run" / "results.parquet"))
    assert rows.column_names[:4] == ["model", "method", "options", "metric"]


def test_a_record_of_an_earlier_version(tmp_path: Path) -> None:
    write_hub(_run(tmp_path / "run", {}), tmp_path / "hub", 5)
    assert "$ not recorded: the run is of an earlier version" in (tmp_path / "hub" / "README.md").read_text()


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    made = synthetic.rows(2, metrics=("SaCo",))
    synthetic.write(tmp_path / "run", made, synthetic.maps(1), RECORD, finished=False)
    with pytest.raises(ValueError, match=r"run: the benchmark is not finished\. The same captum-astro bench command"):
        write_hub(tmp_path / "run", tmp_path / "hub")


def test_the_command(monkeypatch, capsys, tmp_path: Path) -> None:
    run = _run(tmp_path / "a run")
    code, out = run_command(monkeypatch, capsys, "report", run, "--export", "hub")
    assert code == 0, out
    assert out.splitlines()[-2].endswith("hub: 8 files, with README.md. To publish it as a data set:")
    assert out.splitlines()[-1] == f"hf upload OWNER/NAME '{run}/hub' --repo-type dataset"
    assert (run / "hub" / "README.md").is_file()
    code, out = run_command(monkeypatch, capsys, "report", run, "--export", "csv")
    assert code == 2
    assert "--export" in out
