"""``captum-astro ablate``, on reviews of a few words."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.commands import run_command
from tests.training.making import imdb_parquet

SMALL = (
    "--set", "dim=16", "--set", "heads=2", "--set", "epochs=1", "--set", "batch-size=4", "--set", "length=20",
)  # fmt: skip


def test_ablate(monkeypatch, capsys, tmp_path: Path) -> None:
    code, out = run_command(
        monkeypatch, capsys, "ablate", "imdb", "--data", imdb_parquet(tmp_path), "--out", tmp_path / "a",
        "--variants", "full,softmax", "--alphas", "0.5", "--seeds", 2, "--reach", 0.6, *SMALL,
    )  # fmt: skip
    assert code == 0, out
    assert "| alpha 0.5 |" in out
    assert (tmp_path / "a" / "ablation.png").exists()
    page = (tmp_path / "a" / "ablation.md").read_text()
    made = json.loads((tmp_path / "a" / "made.json").read_text())
    assert page.startswith("| variant |")
    assert str(tmp_path) not in page  # the same for everybody
    assert made["versions"]["torch"] in page
    shown = shlex.split(made["command"].replace("\\\n", "").replace("$DATA", str(tmp_path / "imdb")))
    assert shown[:4] == ["captum-astro", "ablate", "imdb", "--data"]
    assert {"--variants=full,softmax", "--alphas=0.5", "--seeds=2", "--reach=0.6", "--set=dim=16"} < {*shown}


def test_own_variants_and_repeating_it(monkeypatch, capsys, tmp_path: Path) -> None:
    out = tmp_path / "a"
    words = ("ablate", "imdb", "--data", imdb_parquet(tmp_path), "--out", out, "--seeds", 1, "--limit", 8, *SMALL)
    code, said = run_command(monkeypatch, capsys, *words, "--variants", "full,quiet:scale=64")
    assert code == 0, said
    for name in said.strip().splitlines()[-1].split(", "):
        assert Path(name).is_file()
    assert json.loads((out / "quiet" / "seed-0" / "run.json").read_text())["scale"] == 64
    weights = next((out / "full" / "seed-0").glob("*.safetensors"))
    before = weights.stat().st_mtime_ns
    code, said = run_command(monkeypatch, capsys, *words, "--variants", "full,quiet:scale=64")
    assert code == 0, said
    assert weights.stat().st_mtime_ns == before  # it was not trained again


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("mnist",), "There is no task 'mnist'"),
        (("imdb", "--variants", "half"), "There is no variant 'half'"),
        (("imdb", "--set", "dim"), "--set has no option 'dim'. Expected NAME=VALUE."),
        (("imdb", "--set", "size=3"), "imdb has no option 'size'"),
        (("imdb", "--alphas", "a"), "--alphas must be a number of at least 0, not 'a'"),
    ],
)
def test_what_is_refused_leaves_nothing(monkeypatch, capsys, tmp_path: Path, words, message: str) -> None:
    code, said = run_command(monkeypatch, capsys, "ablate", *words, "--out", tmp_path / "out")
    assert code == 1
    assert message in said
    assert not (tmp_path / "out").exists()
