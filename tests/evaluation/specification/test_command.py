from __future__ import annotations

import json
import shlex
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from captum_astro.command_lines import WIDTH
from captum_astro.evaluation.specification.command import command
from captum_astro.models.loading import load_model
from captum_astro.storage import RECORD
from tests.commands import run_command
from tests.evaluation import making

TINY = ["-M", making.NAME, "-m", "Random", "--metrics", "segmentation", "--limit", 2]


def _split(text: str) -> list[str]:
    """The words that a shell sees: a backslash at the end of a line joins it to the next."""
    return shlex.split(text.replace("\\\n", ""))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Images with boxes, and weights with seven classes and their average."""
    (tmp_path / "a b").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a b" / "0.png")
    (tmp_path / "a b" / "boxes.csv").write_text("file,label,x0,y0,x1,y1\n0.png,0,3,3,20,20\n")
    state = load_model(making.NAME, pretrained=False, num_classes=7).state_dict()
    both = {"state_dict": state, "state_dict_ema": {key: value + 1 for key, value in state.items()}}
    torch.save(both, tmp_path / "w.pt")
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["--data", "scenes", "--no-pretrained"],
        ["--data", "scenes", "--no-pretrained", "--classes", 7, "--seed", 3, "--explained", "true", "--steps", 3],
        ["--data", "scenes", "-c", "{data}/w.pt", "--chunk-size", 1, "--examples", 1, "--amp", "bfloat16"],
        ["--data", "boxes:{data}/a b", "-c", "{data}/w.pt", "--no-ema", "--crop", "none"],
        ["--data", "boxes:{data}/a b", "-c", "{data}/w.pt", "--preset", "vtranm-table4", "--part", "segmentation"],
    ],
)
def test_the_command_of_a_record_makes_the_same_run(words, data: Path, monkeypatch, capsys) -> None:
    given = [str(word).format(data=data) for word in words]
    code, said = run_command(monkeypatch, capsys, "bench", *TINY, *given, "--out", data / "first")
    assert code == 0, said
    record = json.loads((data / "first" / RECORD).read_text())
    text = command(record, "$RUNS/second")
    assert str(data) not in text
    again = _split(text.replace("$DATA", str(data)).replace("$RUNS", str(data)))
    assert again[:2] == ["captum-astro", "bench"]
    code, said = run_command(monkeypatch, capsys, *again[1:])
    assert code == 0, said
    found = json.loads((data / "second" / RECORD).read_text())
    record["configuration"]["batch_size"] = found["configuration"]["batch_size"]
    assert found == record


def test_long_words_go_on_in_the_next_line() -> None:
    methods = ["VTranM", *(f"VTranM:gain={gain}" for gain in range(40))]
    record = {"configuration": {"models": ["vit"], "data": "scenes", "methods": methods, "metrics": ["mIoU"]}}
    text = command(record, "out")
    assert max(map(len, text.splitlines())) <= WIDTH + 2
    words = _split(text)
    given = [value for name, value in pairwise(words) if name == "-m"]
    assert ",".join(given).split(",") == methods


@pytest.mark.parametrize("made", [{"checkpoints": ["a.pt", None]}, {"classes": [7, 8]}])
def test_what_no_command_says(made: dict[str, list[object]]) -> None:
    assert not command({"configuration": {"models": ["a", "b"], "data": "scenes"}, "made": made}, "out")
