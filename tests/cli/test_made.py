"""How a run was made: the command for anybody's folders, which gives the run again."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import torch

from captum_astro.cli._made import record_made


def _command(out: Path, *arguments: Any, **keywords: Any) -> str:
    record_made(out, *arguments, **keywords)
    command: str = json.loads((out / "made.json").read_text())["command"]
    return command.replace(" \\\n    ", " ")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "runs" / "out").mkdir(parents=True)
    return tmp_path / "runs" / "out"


def test_each_kind_of_option(out: Path) -> None:
    options = {
        "k": 3, "phi": -0.5, "layer": ["a", "blocks.[0-2].*"], "none": None, "empty": [], "kept": True, "causal": False,
        "weights": Path("/home/me/a b.safetensors"), "note": "say $HOME",
    }  # fmt: skip
    assert _command(out, "vita search", "boxes:/home/me/birds", "cpu", options) == (
        "captum-astro vita search --data boxes:$DATA/birds --k=3 --phi=-0.5 --layer=a "
        '--layer="blocks.[0-2].*" --kept --no-causal --weights="$DATA/a b.safetensors" --note="say \\$HOME" '
        "--out $RUNS/out"
    ).replace("boxes:$DATA/birds", '"boxes:$DATA/birds"').replace("$RUNS/out", '"$RUNS/out"')


def test_a_run_of_another_folder_is_named_from_where_both_are(out: Path, tmp_path: Path) -> None:
    run = tmp_path / "trained" / "full" / "seed-0"
    assert _command(out, "parts", "", "cpu", {}, run=run) == (
        'captum-astro parts "$RUNS/trained/full/seed-0" --out "$RUNS/runs/out"'
    )
    beside = tmp_path / "runs" / "imdb"
    assert _command(out, "parts", "", "cpu", {}, run=beside) == 'captum-astro parts "$RUNS/imdb" --out "$RUNS/out"'


def test_relative_folders(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(out.parent)
    assert _command(Path("out"), "parts", "", "cpu", {}, run=Path("imdb")) == (
        'captum-astro parts "$RUNS/imdb" --out "$RUNS/out"'
    )


def test_what_is_said_is_what_is_recorded_and_names_no_place(out: Path, tmp_path: Path) -> None:
    said = record_made(out, "ablate imdb", f"folder:{tmp_path}/reviews", "cpu", {"seeds": 3})
    made = json.loads((out / "made.json").read_text())
    assert made["command"] in said
    assert str(tmp_path) not in said + json.dumps(made)
    assert made["data"] == "folder:$DATA/reviews"
    assert made["versions"]["torch"] == torch.__version__
    assert f"torch {torch.__version__}" in said
    assert abs((date.today() - date.fromisoformat(made["date"])).days) <= 1
    assert made["machine"] in said
