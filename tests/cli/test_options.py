"""Options are checked before anything is read, and the message says what is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from captum_astro.devices import check_device, devices
from tests.commands import run_command

BENCH = ("bench", "--models", "test_vit", "--data", "scenes", "--out", "{out}")
EXPLAIN = ("explain", "image.png", "--model", "test_vit", "--no-pretrained", "--out", "{out}")
TRAIN = ("train", "imdb", "--data", "nowhere", "--out", "{out}")
SEARCH = ("vita", "search", "--data", "scenes", "--model", "test_vit", "--no-pretrained", "--out", "{out}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*BENCH, "--classes", "-1"), "'--classes': it must be a whole number from 1 to 1,000,000,000, not '-1'"),
        ((*BENCH, "--classes", "0"), "'--classes': it must be a whole number from 1 to 1,000,000,000, not '0'"),
        ((*BENCH, "--steps", "1"), "'--steps': it must be a whole number from 2 to 100,000, not '1'"),
        ((*BENCH, "--limit", "9" * 30), "'--limit' / '-n': it must be a whole number from 1 to"),
        ((*BENCH, "--seed", "-1"), "'--seed': it must be a whole number from 0 to 4,294,967,295, not '-1'"),
        ((*BENCH, "--batch-size", "many"), "'--batch-size' / '-b': it must be a whole number from 1 to"),
        ((*BENCH, "--device", "nonsense"), "'--device' / '-d': This machine has no device 'nonsense'. It has cpu"),
        ((*EXPLAIN, "--device", "meta"), "'--device' / '-d': This machine has no device 'meta'. It has cpu"),
        ((*EXPLAIN, "--device", "cuda:99"), "'--device' / '-d': This machine has no device 'cuda:99'. It has cpu"),
        ((*TRAIN, "--epochs", "inf"), "'--epochs': it must be a number, not 'inf'"),
        ((*TRAIN, "--lr", "much"), "'--lr': it must be a number, not 'much'"),
        ((*TRAIN, "--device", "cuda:99"), "'--device' / '-d': This machine has no device 'cuda:99'"),
        ((*SEARCH, "--rows", "0"), "'--rows': it must be a whole number from 1"),
        (("demo", "--scenes", "10001"), "'--scenes': it must be a whole number from 1 to 10,000, not '10001'"),
        (("ablate", "imdb", "--out", "{out}", "--reach", "nan"), "'--reach': it must be a number, not 'nan'"),
        ((*BENCH, "--metrics", ""), "--metrics is empty: give a value, or leave it out"),
        ((*BENCH, "--methods="), "--methods is empty"),
        (("bench", "--models", "x", "--data", "scenes", "--out", " "), "--out is empty"),
        (("explain", ""), "An argument is empty"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) else "",
)
def test_usage_errors(monkeypatch, capsys, tmp_path: Path, words, message: str) -> None:
    code, out = run_command(monkeypatch, capsys, *(word.format(out=tmp_path / "out") for word in words))
    assert code == 2
    assert message in out
    assert len(out.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*BENCH, "--methods", ","), "--method names nothing: ','"),
        ((*BENCH[:1], "--models", ",", *BENCH[3:]), "--model names nothing: ','"),
        ((*BENCH, "--methods", "VTranM:gain=nan"), "VTranM: gain must be a number, not 'nan'."),
        ((*BENCH, "--methods", "VTranM:gain=1:gain=2"), "VTranM: gain is given twice."),
        ((*BENCH, "--methods", "VTranM:aggregation=no"), "VTranM: aggregation must be true or false, not 'no'."),
        ((*SEARCH, "--k", ","), "--k names nothing: ','"),
        ((*SEARCH, "--phi", "inf"), "--phi must be a number, not 'inf'"),
        ((*SEARCH, "--metrics", ","), "--metric names nothing"),
        (("explain", "image.png", "--out", __file__), f"--out {__file__}: {__file__} is a file; give a folder."),
        (("train", "scenes", "--out", f"{__file__}/in"), f"--out {__file__}/in: {__file__} is a file; give a folder."),
        ((*TRAIN, "--lr", "0"), "lr must be a number above 0, not 0.0."),
        (("ablate", "imdb", "--variants", ",", "--out", "{out}"), "--variants names nothing"),
        (("ablate", "imdb", "--alphas", "-1", "--out", "{out}"), "--alphas must be a number of at least 0, not '-1'"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, tuple) else "",
)
def test_invalid_values(monkeypatch, capsys, tmp_path: Path, words, message: str) -> None:
    code, out = run_command(monkeypatch, capsys, *(word.format(out=tmp_path / "out") for word in words))
    assert code == 1
    assert message in out
    assert not (tmp_path / "out").exists()


def test_devices(monkeypatch) -> None:
    for device in devices():
        check_device(torch.device(device))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    check_device("cuda:1")
    with pytest.raises(ValueError, match=r"no device 'cuda:2'\. It has cpu, cuda, cuda:0, cuda:1\.$"):
        check_device("cuda:2")
