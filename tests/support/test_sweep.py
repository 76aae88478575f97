from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from captum_astro.support import sweep
from captum_astro.support.sweep import Sweep, names_like
from tests.commands import run_command

NAMES = ["test_vit", "test_vit2", "resnet10t"]


def _ended(name: str) -> dict[str, Any]:
    os._exit(7)


def _slow(name: str) -> dict[str, Any]:
    time.sleep(60)
    return {}


def _raising(name: str) -> dict[str, Any]:
    raise KeyError(name)


def test_a_sweep_resumes_and_repeats_what_is_asked_for(monkeypatch, capsys, tmp_path: Path) -> None:
    file = tmp_path / "sweep.json"
    code, out = run_command(monkeypatch, capsys, "sweep", "test_vit", "resnet10t", "--out", file)
    assert code == 0, out
    assert "VTranM exact, TransformerAttribution exact, TokenGradCAM exact, AttnLRP exact" in out
    stored = json.loads(file.read_text())
    assert set(stored["names"]) == {"test_vit", "resnet10t"}
    convolutional = stored["kinds"][stored["names"]["resnet10t"]]
    assert convolutional["status"]["VTranM"] == "refused"
    assert convolutional["status"]["TokenGradCAM"] == "exact"
    assert convolutional["model_class"] == "ResNet"
    (reason,) = convolutional["reasons"]
    assert reason.startswith("timm.models.resnet.ResNet has no layout: ")
    assert convolutional["reasons"][reason] == ["VTranM", "TransformerAttribution"]
    assert convolutional["status"]["AttnLRP"] == convolutional["status"]["LRP"] == "exact"
    assert set(stored["kinds"][stored["names"]["test_vit"]]["conserved"]) == {"AttnLRP", "ConservativeLRP", "LRP"}
    assert run_command(monkeypatch, capsys, "sweep", "test_vit", "resnet10t", "--out", file) == (0, "")
    code, out = run_command(monkeypatch, capsys, "sweep", "test_vit", "--again", "--out", file)
    assert code == 0
    assert out.startswith("test_vit (")
    assert set(json.loads(file.read_text())["names"]) == {"test_vit", "resnet10t"}


@pytest.mark.parametrize(
    ("trial", "error"),
    [(_ended, "status 7"), (_slow, "No result after 3 s"), (_raising, "KeyError: 'resnet10t'")],
)
def test_a_model_that_ends_its_process_is_an_error_in_its_row(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trial: Any, error: str
) -> None:
    results = Sweep(tmp_path / "sweep.json")
    results.sort(["resnet10t"], print)
    monkeypatch.setattr(sweep, "_try", trial)
    ((name, found),) = results.tried(["resnet10t"], again=False, seconds=3)
    assert name == "resnet10t"
    assert error in found["error"]
    assert not list(Sweep(tmp_path / "sweep.json").tried(["resnet10t"], again=False, seconds=3))


def test_patterns_are_of_names_and_families() -> None:
    assert len(names_like([])) > 1300
    assert set(names_like(["tnt", "test_vit"])) == {*names_like(["tnt_*"]), "test_vit"}
    with pytest.raises(ValueError, match=r"No name and no family of timm matches 'no\*'"):
        names_like(["tnt", "no*"])


def test_a_file_of_another_version_of_timm_is_not_continued(tmp_path: Path) -> None:
    file = tmp_path / "sweep.json"
    file.write_text('{"timm": "0.1", "names": {}, "kinds": {}}')
    with pytest.raises(ValueError, match=r"sweep\.json is of timm 0\.1, and .* is installed: give another file"):
        Sweep(file)


@pytest.mark.parametrize("held", ["no JSON", "[1]", "{}", '{"timm": "1"}'])
def test_a_file_of_something_else_is_kept(tmp_path: Path, held: str) -> None:
    (tmp_path / "notes.txt").write_text(held)
    with pytest.raises(ValueError, match=r"notes\.txt (cannot be read as|does not hold) the results of a sweep"):
        Sweep(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == held
