from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from captum_astro.models.loading import load_model
from captum_astro.progress import Lines
from captum_astro.storage import weights_digest
from tests.commands import run_command
from tests.evaluation import making


def _run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    return run_command(monkeypatch, capsys, "bench", *words)


def test_a_run_its_lines_and_its_record(monkeypatch, capsys, tmp_path: Path) -> None:
    words = ["--models", making.NAME, "--no-pretrained", "--methods", "Random", "--data", "scenes", "--limit", 3]
    words += ["--metrics", "segmentation,saco", "--chunk-size", 1, "--steps", 3, "--out", tmp_path / "out"]
    monkeypatch.setattr("captum_astro.progress.EVERY", 0.0)
    code, out = _run(monkeypatch, capsys, *words)
    assert code == 0
    assert out.splitlines()[:4] == [
        "1 of 3 samples, 0 min left",
        "2 of 3 samples, 0 min left",
        "3 of 3 samples, 0 min left",
        f"3 samples, all rows in {tmp_path / 'out'}/results.parquet.",
    ]
    rows = pd.read_parquet(tmp_path / "out" / "results.parquet")
    saco = rows[rows["metric"] == "SaCo"]["value"].mean()
    assert re.search(rf"^ +SaCo\n +predicted\nmethod +higher\nRandom +{saco:.3f}\nchance +0.000$", out, re.MULTILINE), (
        out
    )
    assert re.search(r"^ +pixel accuracy +mIoU +mAP$", out, re.MULTILINE)
    assert out.endswith(f": captum-astro report {tmp_path / 'out'}\n")
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["configuration"]["metrics"] == ["pixel accuracy", "mIoU", "mAP", "SaCo"]
    assert record["configuration"]["batch_size"] == 16
    code, out = _run(monkeypatch, capsys, *words)
    assert (code, out.splitlines()[0]) == (0, "The benchmark is finished.")
    code, out = _run(monkeypatch, capsys, *words, "--seed", 1)
    assert code == 1
    assert "another run (configuration.seed, models.bench_vit_nano.weights differ)" in out


def test_preset_on_custom_data(monkeypatch, capsys, tmp_path: Path) -> None:
    checkpoint = tmp_path / "a.pt"
    torch.save(load_model(making.NAME, pretrained=False, num_classes=7).state_dict(), checkpoint)
    code, out = _run(
        monkeypatch, capsys, "--preset", "vtranm-table4", "--part", "perturbation", "--models", making.NAME,
        "--checkpoint", checkpoint, "--classes", 7, "--data", "scenes", "--limit", 2, "--out", tmp_path / "out",
    )  # fmt: skip
    assert code == 0, out
    found = json.loads((tmp_path / "out" / "run.json").read_text())["configuration"]
    assert found["metrics"] == ["accuracy", "positive AUC", "negative AUC"]
    assert found["methods"][1:3] == ["VTranM:components=", "VTranM:components=length"]
    assert found["crop"] == "timm"


def test_a_model_with_one_class_has_no_scores(monkeypatch, capsys, tmp_path: Path) -> None:
    for number in range(2):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(
            tmp_path / f"{number}.png"
        )
    (tmp_path / "labels.csv").write_text("file,label\n0.png,0\n1.png,0\n")
    _run(
        monkeypatch, capsys, "--models", making.NAME, "--no-pretrained", "--classes", 1, "--methods",
        "VTranM:output=logit,AttentionRollout", "--data", f"folder:{tmp_path}", "--steps", 3, "--out", tmp_path / "out",
    )  # fmt: skip
    rows = pd.read_parquet(tmp_path / "out" / "results.parquet")
    of_model = rows[rows["metric"] != "sparseness"]
    assert set(of_model["metric"]) >= {"accuracy", "positive AUC", "negative AUC", "deletion", "average drop", "SaCo"}
    assert of_model["value"].isna().all()
    assert set(of_model["error"]) == {"Undefined: the model has only one class"}


def test_the_weights_of_a_checkpoint(monkeypatch, capsys, tmp_path: Path) -> None:
    file, state = tmp_path / "a.pt", load_model(making.NAME, pretrained=False, num_classes=7).state_dict()
    torch.save({"state_dict": state, "state_dict_ema": {key: value + 1 for key, value in state.items()}}, file)
    words = ["--models", making.NAME, "--checkpoint", file, "--methods", "Random", "--data", "scenes", "--limit", 1]
    words += ["--metrics", "saco", "--out", tmp_path / "out"]
    code, out = _run(monkeypatch, capsys, *words)
    assert code == 0, out
    assert "raw and averaged weights: state_dict_ema is loaded; --no-ema loads state_dict." in out
    record = json.loads((tmp_path / "out" / "run.json").read_text())["models"][making.NAME]
    assert record["weights"] == weights_digest(load_model(making.NAME, checkpoint=file, say=lambda line: None))
    other = f"holds results of another run (models.{making.NAME}.weights differ)"
    code, out = _run(monkeypatch, capsys, *words, "--no-ema")
    assert (code, other in out) == (1, True)
    torch.save(state, file)
    code, out = _run(monkeypatch, capsys, *words)
    assert (code, other in out) == (1, True)
    code, out = _run(monkeypatch, capsys, *words, "--classes", 9)
    assert code == 1
    assert "a.pt has a head of 7 classes, not 9: give --classes 7, or weights with 9 classes." in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "Give --model and --data, or a --preset"),
        ("--preset vtranm-table9", "--preset must be one of vtranm-table1"),
        ("--preset vtranm-table2", "The part segmentation needs ImageNet-Segmentation"),
        ("--preset vtranm-table2 --data scenes", "--data is for one --part"),
        ("--preset vtranm-table1", "are not published: give --model and --checkpoint, one --part (cifar10 or"),
        ("--preset vita-table1 --data-root /nowhere", "at /nowhere/clickme: it is not there"),
        ("--models a --data scenes --part x", "--part is one dataset of a --preset"),
        ("--models a,b --data scenes --checkpoint x", "1 --checkpoint for 2 models: give one for each, or none."),
        ("--models nothing_vit --data scenes", "timm has no model 'nothing_vit'"),
        ("--models a --data movies", "--data must be scenes"),
        ("--models a --data scenes --metrics x", "There is no metric 'x'"),
        ("--models a --data scenes --methods x", "There is no method 'x'"),
        ("--models a --data folder:/nowhere", "/nowhere/labels.csv: there is no such table.\n"),
    ],
)
def test_invalid_names(monkeypatch, capsys, tmp_path: Path, words: str, message: str) -> None:
    code, out = _run(monkeypatch, capsys, *words.split(), "--out", tmp_path / "out")
    assert code == 1
    assert message in out
    assert not (tmp_path / "out").exists()


def test_missing_chunks_of_other_processes_are_an_error(monkeypatch, capsys, tmp_path: Path) -> None:
    from captum_astro.evaluation.run import shards

    words = ["--models", making.NAME, "--no-pretrained", "--methods", "Random", "--data", "scenes", "--limit", 2]
    words += ["--metrics", "saco", "--chunk-size", 1, "--out", tmp_path / "out"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(shards, "PATIENCE", 0.0)
    code, out = _run(monkeypatch, capsys, *words)
    assert code == 1
    assert "1 chunks are missing: their processes are gone." in out
    monkeypatch.setenv("RANK", "1")
    assert _run(monkeypatch, capsys, *words) == (0, "")
    monkeypatch.setenv("RANK", "0")
    assert _run(monkeypatch, capsys, *words)[0] == 0


def test_machine_errors_say_what_is_kept(monkeypatch, capsys, tmp_path: Path) -> None:
    from captum_astro.evaluation.run.store import BenchStore

    words = ["--models", making.NAME, "--no-pretrained", "--methods", "Random", "--data", "scenes", "--limit", 1]
    words += ["--metrics", "saco", "--out", tmp_path / "out"]

    def fails(error: BaseException) -> None:
        def add(*arguments: object) -> None:
            raise error

        monkeypatch.setattr(BenchStore, "add", add)

    fails(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"))
    code, out = _run(monkeypatch, capsys, *words)
    assert code == 1
    assert "out of memory. Tried to allocate. Finished chunks are kept: run the same command again to resume." in out
    fails(RuntimeError("a mistake of ours"))
    with pytest.raises(RuntimeError, match="of ours"):
        _run(monkeypatch, capsys, *words)


def _small(folder: Path, *more: object) -> list[object]:
    words = ["--models", making.NAME, "--no-pretrained", "--data", "scenes", "--limit", 2, "--chunk-size", 1]
    return [*words, "--metrics", "saco", "--out", folder, *more]


def test_a_run_of_which_every_row_failed_ends_with_an_error(monkeypatch, capsys, tmp_path: Path) -> None:
    words = _small(tmp_path, "--methods", "VTranM:layers=9")
    for _ in range(2):  # when it ends, and when it is found finished
        code, out = _run(monkeypatch, capsys, *words)
        assert code == 1
        assert "error: Every row of every method failed" in out
    assert _run(monkeypatch, capsys, *_small(tmp_path / "b", "--methods", "VTranM:layers=9,Random"))[0] == 0


def test_an_interrupted_run_says_how_to_go_on(monkeypatch, capsys, tmp_path: Path) -> None:
    from captum_astro.evaluation.run.scoring import Scorer

    score = Scorer.score

    def interrupted(self, loaded):
        if loaded.cases[0].number == 1:
            raise KeyboardInterrupt
        return score(self, loaded)

    with monkeypatch.context() as patched:
        patched.setattr(Scorer, "score", interrupted)
        code, out = _run(patched, capsys, *_small(tmp_path, "--methods", "Random"))
    assert code == 130
    assert out.splitlines()[-1] == "Stopped: finished chunks are kept, and the same command resumes."
    code, out = _run(monkeypatch, capsys, *_small(tmp_path, "--methods", "Random"))
    assert (code, out.splitlines()[0]) == (0, "1 of 2 samples are already done.")


def test_a_folder_of_an_earlier_version_is_refused(monkeypatch, capsys, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"configuration": {}, "samples": {"count": 2, "digest": "0"}}')
    code, out = _run(monkeypatch, capsys, *_small(tmp_path, "--methods", "Random"))
    assert code == 1
    assert "holds a benchmark of another version of captum-astro" in out
    assert "Choose another folder" in out


def test_one_progress_line_per_minute() -> None:
    lines: list[str] = []
    now = [0.0]
    progress = Lines(lines.append, "samples", clock=lambda: now[0])
    for done in range(100, 201):
        progress(done, 400)
        now[0] += 45
    assert lines[:2] == ["102 of 400 samples, 3 h 44 min left", "104 of 400 samples, 3 h 42 min left"]
    assert len(lines) == 50
