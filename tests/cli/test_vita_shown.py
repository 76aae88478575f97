"""What ``captum-astro vita`` prints of a comparison."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from captum_astro.cli._terminal import console
from captum_astro.cli._vita_shown import print_controls, print_gains, progress
from captum_astro.evaluation.vita.settings import Setting
from captum_astro.functional.astrocyte import Modulation

SETTINGS = [Setting(Modulation(k=6, tau=3)), Setting(Modulation(k=4, tau=2, phi=0.0), "blocks.0.mlp.fc1")]


def _row(**given: Any) -> dict[str, Any]:
    row = {
        "method": "TokenGradCAM", "metric": "spearman", "plain": 0.1, "modulated": 0.25, "low": -0.01, "high": 0.31,
        "p_holm": 0.0123, "left_out": 0, "setting": 0, "same_class": 0.75,
    }  # fmt: skip
    return row | given


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_width", 150)


def test_a_comparison_and_its_setting(capsys: pytest.CaptureFixture[str]) -> None:
    print_gains(pd.DataFrame([_row()]), SETTINGS)
    head, row, last = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0] == "method"
    assert row.split() == ["TokenGradCAM", "spearman", "0.100", "0.250", "-0.010", "..", "+0.310", "0.012"]
    assert last == "k=6,tau=3,phi=-0.5,alpha=1.5,beta=0.05: same class as the plain model 75.0%"


def test_several_settings_with_accuracy_and_samples_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    accuracy = {"plain_accuracy": 0.9, "accuracy": 0.8}
    rows = [_row(**accuracy), _row(metric="dice", left_out=1, **accuracy), _row(metric="ssim", setting=1, **accuracy)]
    print_gains(pd.DataFrame(rows), SETTINGS)
    assert capsys.readouterr().out.splitlines()[4:] == [
        "TokenGradCAM, dice: 1 sample without a value",
        "k=6,tau=3,phi=-0.5,alpha=1.5,beta=0.05: same class as the plain model 75.0%, accuracy 90.0% -> 80.0%",
        "  for TokenGradCAM, spearman; TokenGradCAM, dice",
        "k=4,tau=2,phi=0,alpha=1.5,beta=0.05,layer=blocks.0.mlp.fc1: same class as the plain model 75.0%, "
        "accuracy 90.0% -> 80.0%",
        "  for TokenGradCAM, ssim",
    ]


def test_gains_are_counted_by_control(capsys: pytest.CaptureFixture[str]) -> None:
    gains = {"plain": (0.1, 0.01), "centre": (-0.2, 0.001), "blurred": (0.1, 0.05)}  # a loss, and one not certain
    rows = [
        {"method": method, "metric": "dice", "control": control, "difference": difference, "p_holm": p}
        for method in ("TokenGradCAM", "VTranM")
        for control, (difference, p) in gains.items()
    ]
    print_controls(pd.DataFrame(rows))
    said = capsys.readouterr().out
    assert said == "Gains beyond each control, p (Holm) below 0.05, of 2: plain 2, centre 0, blurred 0\n"
    print_controls(pd.DataFrame(columns=list(rows[0])))
    assert capsys.readouterr().out == ""


def test_progress_in_a_file_is_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("captum_astro.progress.EVERY", 0.0)
    with progress("Comparing") as show:
        show(0)
        show(3)
    assert capsys.readouterr().out == "3 samples\n"
