"""The page on astrocytes, from runs whose figures are known."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from captum_astro.evaluation.evidence import write_vita
from captum_astro.evaluation.report.grid import LEVEL, MINUS, MISSING

SETTING = {"layer": None, "k": 6, "tau": 3, "phi": -0.5, "alpha": 1.5, "beta": 0.05}
MADE = {
    "command": "captum-astro vita search --data clickme:$DATA/gaze", "data": "clickme:$DATA/gaze",
    "date": "2026-01-02", "machine": "Linux, 2 cores", "versions": {"torch": "2.9.0", "python": "3.11"},
}  # fmt: skip
TEST = {"n": 60, "effect": 0.5, "low": 0.01, "high": 0.1, "p": 0.001, "detectable": 0.04}
CONTROLS = ("plain", "centre", "blurred", "another", "class kept")


def _run(folder: Path, gains: dict[str, float], controls: dict[str, dict[str, float]], table: str = "best.csv") -> Path:
    """A run with a p-value for each metric, and one for each metric and control."""
    folder.mkdir()
    rows = [
        {"method": "TokenGradCAM", "metric": metric, "setting": 1, "plain": 0.1, "modulated": 0.15, "difference": 0.05,
         "p_holm": p, "same_class": 0.425, **TEST}
        for metric, p in gains.items()
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(folder / table, index=False)
    beside: list[dict[str, Any]] = []
    for metric, own in controls.items():
        for control, p in own.items():
            row = {"method": "TokenGradCAM", "metric": metric, "control": control, "modulated": 0.15, "beside": 0.3}
            row |= {"width": 0.2 if control == "centre" else math.nan, "p_holm": p, **TEST}
            row |= {"difference": 0.05 if p < LEVEL else -0.15}
            left = 0.5 if control == "class kept" else math.nan
            beside.append(row | dict.fromkeys(("surviving", "surviving_low", "surviving_high"), left))
    pd.DataFrame(beside).to_csv(folder / "controls.csv", index=False)
    record = {
        "settings": [SETTING, SETTING | {"layer": "blocks.0.mlp.fc1"}],
        "model": "VisionTransformer",
        "weights": "01",
    }
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "made.json").write_text(json.dumps(MADE))
    return folder


def test_the_page_says_what_is_certain_and_what_the_controls_leave(tmp_path: Path) -> None:
    explained = dict.fromkeys(CONTROLS, 0.001)
    controls = {"dice": explained, "ssim": explained | {"blurred": 0.4}}
    run = _run(tmp_path / "search", {"dice": 0.001, "ssim": 0.02, "spearman": 0.2}, controls)
    (run / "curve.svg").write_text("<svg/>")
    one = _run(tmp_path / "one", {"dice": 0.5}, {"dice": explained}, "compared.csv")
    out = tmp_path / "docs" / "vita.md"
    written = write_vita([run, one], out, title="Gaze", notes=["ClickMe was not at hand."])
    assert [file.name for file in written] == ["vita.md", "vita-search.svg"]
    assert written[1].read_text() == "<svg/>"
    page = out.read_text()
    answer = (
        "With astrocytes the agreement certainly rises in 2 of 4 comparisons on clickme and falls in none. Of 2 gains, "
        "2 are certain both beside another image's human map and where the class is kept; 1 leaves a map that is "
        "better than a Gaussian at the centre and than the blurred plain map."
    )
    assert f"**{answer}**" in page
    assert "| search | clickme | 3 | 2 | 0 | 2 | 1 |" in page
    assert "| one | clickme | 1 | 0 | 0 | 0 | 0 |" in page
    assert "ClickMe was not at hand." in page
    small = "<br><small>[+0.010,&nbsp;+0.100] p&nbsp;=&nbsp;0.020</small>"
    assert (
        f"| ssim | 60 | 0.100 | 0.150 | +0.050{small} | +0.500 | 0.040 | 42 % | `blocks.0.mlp.fc1`, k 6, tau 3" in page
    )
    assert "| spearman | 60 | 0.100 | 0.150 | ~+0.050<br>" in page
    assert "| centre, width 0.2 | 60 | 0.150 | 0.300 |" in page
    assert f"| blurred | 60 | 0.150 | 0.300 | ~{MINUS}0.150<br>" in page
    assert "| 0.040 | 50 %<br><small>[50 %, 50 %]</small> |" in page
    assert MADE["command"] in page
    assert "torch 2.9.0, python 3.11" in page
    assert 'captum-astro vita report "$RUNS/search" "$RUNS/one" --title Gaze' in page
    assert str(tmp_path) not in page
    write_vita([run, one], out, title="Gaze", notes=["ClickMe was not at hand."])
    assert out.read_text() == page


def test_what_has_no_value_is_said(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", {"dice": 0.5}, {"dice": {"plain": 0.5}})
    table = pd.read_csv(run / "best.csv")
    table[["plain", "modulated", "difference", "p_holm", "effect", "detectable"]] = math.nan
    table.to_csv(run / "best.csv", index=False)
    page = write_vita([run], tmp_path / "page.md")[0].read_text()
    row = " | ".join([MISSING] * 5)
    assert f"| dice | 60 | {row} | 42 % |" in page
    answer = "With astrocytes the agreement certainly rises in none of 1 comparison on clickme and falls in none."
    assert f"**{answer}**" in page


def test_losses_and_datasets_are_counted_apart(tmp_path: Path) -> None:
    gaze = _run(tmp_path / "gaze", {"dice": 0.001, "ssim": 0.001}, {"dice": dict.fromkeys(CONTROLS, 0.001)})
    table = pd.read_csv(gaze / "best.csv")
    table.loc[table["metric"] == "ssim", "difference"] = -0.05
    table.to_csv(gaze / "best.csv", index=False)
    scenes = _run(tmp_path / "scenes", {"dice": 0.001}, {"dice": dict.fromkeys(CONTROLS, 0.001) | {"another": 0.5}})
    (scenes / "made.json").write_text(json.dumps(MADE | {"data": "scenes"}))
    page = write_vita([gaze, scenes], tmp_path / "page.md")[0].read_text()
    assert (
        "rises in 1 of 2 comparisons on clickme and falls in 1; it rises in 1 of 1 comparison on scenes and falls in "
        "none. Of 2 gains, 1 is certain both beside" in page
    )
    assert "; 2 leave a map" in page
    assert "| scenes | scenes | 1 | 1 | 0 | 0 | 1 |" in page


def test_one_setting_is_said_once_and_only_what_rose_is_controlled(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", {"dice": 0.5, "ssim": 0.5}, {"dice": {"plain": 0.5}, "ssim": {"plain": 0.5}})
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"settings": [SETTING]}))
    table = pd.read_csv(run / "best.csv")
    table.loc[table["metric"] == "ssim", "difference"] = -0.05
    table.to_csv(run / "best.csv", index=False)
    page = write_vita([run], tmp_path / "page.md")[0].read_text()
    assert page.count("k 6, tau 3") == 1
    assert "`first projection`, k 6, tau 3, phi -0.5, alpha 1.5, beta 0.05; `VisionTransformer`" in page
    assert "| dice | plain | 60 |" in page
    assert "| ssim | plain |" not in page


@pytest.mark.parametrize("lost", ["best.csv", "controls.csv", "run.json", "made.json"])
def test_a_run_that_is_not_finished_is_named(tmp_path: Path, lost: str) -> None:
    run = _run(tmp_path / "run", {"dice": 0.5}, {"dice": {"plain": 0.5}})
    (run / lost).unlink()
    with pytest.raises(ValueError, match=r"run holds no finished run: captum-astro vita search or vita evaluate"):
        write_vita([run], tmp_path / "page.md")


def test_bad_input(tmp_path: Path) -> None:
    run = _run(tmp_path / "run", {"dice": 0.5}, {"dice": {"plain": 0.5}})
    with pytest.raises(ValueError, match=r"page.html: the page is Markdown"):
        write_vita([run], tmp_path / "page.html")
    for folders in ([], [run, run]):
        with pytest.raises(ValueError, match="at least one folder, and folders of different names"):
            write_vita(folders, tmp_path / "page.md")
    (run / "made.json").write_text("[]")
    with pytest.raises(ValueError, match=r"holds a damaged run.json or made.json"):
        write_vita([run], tmp_path / "page.md")
