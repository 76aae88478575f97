"""``captum-astro words`` on runs that were trained for a moment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from captum_astro.cli.words import _names
from captum_astro.evaluation.run.results import read_run
from captum_astro.storage import RECORD
from captum_astro.training.imdb import Imdb
from captum_astro.training.run import train
from captum_astro.training.wikitext2 import WikiText2
from tests.commands import run_command
from tests.training.making import imdb_parquet, wikitext
from tests.training.test_run import SMALL


def _trained(folder: Path, **options: object) -> Path:
    folder.mkdir(parents=True)
    train(Imdb(data=str(imdb_parquet(folder.parent)), steps=40, length=30, lr=1e-2, **SMALL | options), folder)
    return folder


def test_two_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    astro, softmax = _trained(tmp_path / "astro"), _trained(tmp_path / "softmax", attention="softmax")
    out = tmp_path / "words"
    command = ("words", astro, softmax, "-n", 4, "--draws", 2, "--out", out)
    code, said = run_command(monkeypatch, capsys, *command)
    assert code == 0, said
    assert "comprehensiveness" in said
    assert f"{out}/results.parquet, {out}/words.md, {out}/words.svg" in said
    found = read_run(out)
    assert {*found.rows["model"]} == {"astro", "softmax"}
    assert sorted({*found.rows["sample"]}) == [1, 3, 6, 8]  # of ten
    assert found.rows["error"].isna().all()
    assert found.config["models"]["softmax"]["options"]["attention"] == "softmax"
    assert "data" not in found.config["models"]["softmax"]["options"]
    made = {file.name: file.read_bytes() for file in out.glob("*.*")}
    code, said = run_command(monkeypatch, capsys, *command, "--data", tmp_path)
    assert code == 0, said
    assert {file.name: file.read_bytes() for file in out.glob("*.*")} == made
    code, said = run_command(monkeypatch, capsys, *command, "--draws", 3)
    assert code == 1
    assert "results of another run (configuration.draws differ)" in " ".join(said.split())


def test_runs_of_an_ablation(monkeypatch, capsys, tmp_path: Path) -> None:
    runs = [_trained(tmp_path / name / "seed-0", attention=name) for name in ("astromorphic", "softmax")]
    code, said = run_command(monkeypatch, capsys, "words", *runs, "-n", 2, "--draws", 1, "--out", tmp_path / "words")
    assert code == 0, said
    assert {*read_run(tmp_path / "words").rows["model"]} == {"astromorphic seed-0", "softmax seed-0"}


def test_a_run_of_a_version_with_fewer_options_is_recorded_as_it_was(monkeypatch, capsys, tmp_path: Path) -> None:
    run = _trained(tmp_path / "run")
    record = json.loads((run / RECORD).read_text())
    older = {name: value for name, value in record.items() if name not in ("pos_embed", "evaluate_every")}
    (run / RECORD).write_text(json.dumps(older))
    code, said = run_command(monkeypatch, capsys, "words", run, "-n", 2, "--draws", 1, "--out", tmp_path / "words")
    assert code == 0, said
    [model] = read_run(tmp_path / "words").config["models"].values()
    assert model["options"].keys() == older.keys() - {"data", "tokeniser", "glove"}


def test_other_runs_are_refused(monkeypatch, capsys, tmp_path: Path) -> None:
    code, said = run_command(monkeypatch, capsys, "words", tmp_path, "--out", tmp_path / "words")
    assert code == 1
    assert "no training run in this folder" in said
    train(WikiText2(data=str(wikitext(tmp_path)), steps=2, length=16, vocabulary=300, **SMALL), tmp_path / "language")
    code, said = run_command(monkeypatch, capsys, "words", tmp_path / "language", "--out", tmp_path / "words")
    assert code == 1
    assert "language is a run of wikitext2; give runs of captum-astro train imdb" in " ".join(said.split())
    assert not (tmp_path / "words").exists()


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["runs/a", "runs/b"], ["a", "b"]), (["a/seed-0", "b/seed-0"], ["a seed-0", "b seed-0"]),
        (["x/a/s", "y/a/s", "y/b/s"], ["x a s", "y a s", "y b s"]), (["runs/a"], ["a"]),
    ],
)  # fmt: skip
def test_runs_have_different_names(folders: list[str], names: list[str], tmp_path: Path) -> None:
    assert _names([tmp_path / folder for folder in folders]) == names
