from __future__ import annotations

import json
from pathlib import Path

import pytest

from captum_astro.data.texts import count_words
from tests.commands import run_command
from tests.training.making import cifar_parquet, imdb_parquet, wikitext

SMALL = ("--dim", 16, "--heads", 2, "--depth", 1, "--batch-size", 4, "--steps", 2)


def test_train_and_resume(monkeypatch, capsys, tmp_path: Path) -> None:
    words = ("train", "imdb", "--data", imdb_parquet(tmp_path), "--out", tmp_path / "run", *SMALL, "--length", 20)
    monkeypatch.setattr("captum_astro.progress.EVERY", 0.0)
    code, out = run_command(monkeypatch, capsys, *words)
    assert code == 0, out
    lines = out.splitlines()
    assert lines[0] == "2 of 2 steps, 0 min left"  # and no bar: this is no terminal
    assert lines[1].startswith("epoch 0.22, step 2 of 2: loss")
    assert "test accuracy" in out
    assert {"run.json", "curve.csv", "curve.png", "weights.safetensors", "result.json", "tokeniser.json"} == {
        file.name for file in (tmp_path / "run").iterdir()
    }
    assert "test accuracy" in run_command(monkeypatch, capsys, *words)[1]
    code, out = run_command(monkeypatch, capsys, *words, "--no-relative-position")
    assert code == 1
    assert "(relative_position differ). Choose another folder, or --no-resume to replace it." in out
    assert run_command(monkeypatch, capsys, *words, "--attention", "softmax", "--no-resume")[0] == 0


def test_train_the_others(monkeypatch, capsys, tmp_path: Path) -> None:
    cifar_parquet(tmp_path, train=30)
    wikitext(tmp_path)
    more = ("--patch", 8, "--stem", 4, "--limit", 20, "--no-augment")
    code, out = run_command(
        monkeypatch, capsys, "train", "cifar10", "--data", tmp_path, "--out", tmp_path / "c", *SMALL, *more
    )
    assert code == 0, out
    more = ("--vocabulary", 300, "--length", 16, "--nonlinearity", "none", "--alpha", 1, "-n", 20)
    code, out = run_command(
        monkeypatch, capsys, "train", "wikitext2", "--data", tmp_path, "--out", tmp_path / "w", *SMALL, *more
    )
    assert code == 0, out
    assert "test perplexity" in out
    result = json.loads((tmp_path / "w" / "result.json").read_text())
    text = next(tmp_path.glob("wiki*test*")).read_text().splitlines(keepends=True)[:20]
    assert result["words"] == count_words("".join(text))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "imdb", "--data", "nowhere"), "nowhere: there is no such file or folder"),
        (
            ("train", "imdb", "--data", "x", "--attention", "magic"),
            "attention must be astromorphic or softmax, not 'magic'",
        ),
        (("train", "scenes", "--alpha", "0.5"), "scenes_vit_tiny_patch4_64 has no alpha"),
        (("train", "imdb", "--data", "x", "--lr", "0"), "lr must be a number above 0, not 0.0"),
    ],
)
def test_invalid_options(monkeypatch, capsys, tmp_path: Path, words, message: str) -> None:
    code, out = run_command(monkeypatch, capsys, *words, "--out", tmp_path / "out")
    assert code == 1
    assert message in out
    assert "Traceback" not in out
