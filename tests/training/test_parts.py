from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from captum_astro.models.bundled import ASTROMORPHIC
from captum_astro.training.checkpoint import seed_everything
from captum_astro.training.cifar10 import Cifar10
from captum_astro.training.imdb import Imdb
from captum_astro.training.parts import contributions
from captum_astro.training.run import train
from captum_astro.training.scenes import ScenesTask
from captum_astro.training.wikitext2 import WikiText2
from tests.commands import run_command
from tests.training.making import cifar_parquet, imdb_parquet, wikitext
from tests.training.test_run import SMALL

TASKS = {
    "cifar10": lambda at: Cifar10(data=str(cifar_parquet(at)), validation=20, steps=3, patch=8, stem=4, **SMALL),
    "imdb": lambda at: Imdb(data=str(imdb_parquet(at)), steps=6, length=20, **SMALL),
    "softmax": lambda at: Imdb(data=str(imdb_parquet(at)), steps=6, length=20, attention="softmax", **SMALL),
    "wikitext2": lambda at: WikiText2(data=str(wikitext(at)), steps=6, length=16, vocabulary=300, **SMALL),
}


@pytest.mark.parametrize("name", TASKS)
def test_the_unchanged_model_is_the_one_that_was_trained(tmp_path: Path, name: str) -> None:
    config = TASKS[name](tmp_path)
    result = train(config, tmp_path / "run")
    found = contributions(tmp_path / "run")
    whole = found.changes[0]
    assert (whole["part"], whole["value"]) == ("none", pytest.approx(result[config.metric], rel=1e-12))
    assert whole["change"] == whole["change_low"] == whole["change_high"] == (name == "wikitext2")
    parts = ["none", "attention", "attention"]
    if name != "softmax":
        parts += ["H_neuron"] * 2 + ["H_astro"] * 2 + ["W_astro"] + ["M"] * 2
    assert [row["part"] for row in found.changes] == parts
    assert all(row["low"] <= row["value"] <= row["high"] for row in found.changes)
    seed_everything(config.seed)
    first = config.build(tmp_path / "run").blocks[0].attn
    start = {(row["when"], row["part"]): row["rms"] for row in found.norms if row["layer"] == "blocks.0"}
    if name != "softmax":
        assert start["start", "M"] == pytest.approx(float(first.positions.detach().square().mean().sqrt()), rel=1e-6)
        assert start["end", "M"] != start["start", "M"]
    assert json.loads(json.dumps(found.as_json, allow_nan=False))["samples"] == found.samples
    assert found.markdown.count("\n|---|") == (2 if name == "softmax" else 3)


def test_a_change_is_paired_with_the_unchanged_model(tmp_path: Path) -> None:
    train(Imdb(data=str(imdb_parquet(tmp_path)), steps=60, length=20, lr=1e-2, **SMALL), tmp_path / "run")
    found = {(row["part"], row["set_to"]): row for row in contributions(tmp_path / "run").changes}
    whole = found["none", ""]["value"]
    for row in found.values():
        assert row["change"] == pytest.approx(row["value"] - whole, abs=1e-12)
        assert row["change_low"] <= row["change"] <= row["change_high"]


def test_the_command(monkeypatch, capsys, tmp_path: Path) -> None:
    train(TASKS["imdb"](tmp_path), tmp_path / "run")
    code, out = run_command(monkeypatch, capsys, "parts", tmp_path / "run", "--out", tmp_path / "all" / "parts")
    assert code == 0, out
    (tmp_path / "all" / "parts").rename(tmp_path / "parts")
    tables, made = (tmp_path / "parts" / "parts.md").read_text().split("\n\n```bash\n")
    assert tables in out
    assert made.startswith('captum-astro parts "$RUNS/run" --out "$RUNS/all/parts"\n```\n')
    assert f"torch {torch.__version__}" in made
    written = json.loads((tmp_path / "parts" / "parts.json").read_text())
    assert written["task"] == "imdb"
    assert written["versions"]["torch"] == torch.__version__


def test_a_limit_tests_fewer_samples(monkeypatch, capsys, tmp_path: Path) -> None:
    train(TASKS["wikitext2"](tmp_path), tmp_path / "run")
    whole, part = contributions(tmp_path / "run"), contributions(tmp_path / "run", limit=20)
    assert 1 < part.samples < whole.samples
    assert [row["part"] for row in part.changes] == [row["part"] for row in whole.changes]
    code, out = run_command(monkeypatch, capsys, "parts", tmp_path / "run", "-n", 20, "--out", tmp_path / "parts")
    assert code == 0, out
    assert part.markdown in (tmp_path / "parts" / "parts.md").read_text()
    assert '--limit=20 --out "$RUNS/parts"' in (tmp_path / "parts" / "parts.md").read_text()
    train(ScenesTask(model=ASTROMORPHIC, depth=1, dim=24, steps=1, batch_size=1, held_out=2), tmp_path / "scenes")
    with pytest.raises(ValueError, match="scenes has no option 'limit'"):
        contributions(tmp_path / "scenes", limit=2)


def test_runs_without_parts_are_refused(monkeypatch, capsys, tmp_path: Path) -> None:
    code, out = run_command(monkeypatch, capsys, "parts", tmp_path, "--out", tmp_path / "parts")
    assert code == 1
    assert "no training run in this folder" in out
    train(ScenesTask(steps=1, batch_size=1, held_out=2), tmp_path / "plain")
    code, out = run_command(monkeypatch, capsys, "parts", tmp_path / "plain", "--out", tmp_path / "parts")
    assert code == 1
    assert "VisionTransformer has no astromorphic blocks" in out
    assert not (tmp_path / "parts").exists()
