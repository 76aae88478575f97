"""Random command lines, valid and broken: each succeeds, or ends in one message and a documented exit status.

FUZZ_SEED chooses other lines, FUZZ_LINES how many.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captum_astro import cli
from tests.cli.command_lines import line
from tests.training.making import imdb_parquet, wikitext

SEED, LINES = int(os.environ.get("FUZZ_SEED", "0")), int(os.environ.get("FUZZ_LINES", "500"))


def _run(words: list[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["captum-astro", *words]
    code = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


def _wrong(code: int, out: str, err: str) -> str:
    """What is wrong with the outcome; empty if nothing is."""
    said = out + err
    if code not in (0, 1, 2):
        return f"exit status {code}"
    if "Traceback" in said or re.search(r"\bat 0x[0-9a-f]{6,}", said):
        return "a traceback or an address"
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", said):
        return "a control character"
    if code and err.count("error: ") != 1 and not out.rstrip().endswith(")"):  # check prints its report
        return "not one message"
    last = err.rstrip().splitlines()[-1] if err.strip() else "."
    if code and last[-1] not in ".?!)'\"]":
        return "a message without an end"
    return ""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / "image.png")
    (tmp_path / "text.txt").write_text("no image")
    (tmp_path / "empty").mkdir()
    imdb_parquet(tmp_path)
    wikitext(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [])
    return tmp_path


def test_any_command_line(work: Path) -> None:
    draw, found, codes = random.Random(SEED), [], []
    print(f"FUZZ_SEED={SEED} FUZZ_LINES={LINES}")
    for number in range(LINES):
        out = str(work / f"out-{number}")
        words = [word.replace("{work}", str(work)).replace("{out}", out) for word in line(draw)]
        try:
            outcome = _run(words)
        except Exception as error:
            found.append(f"{words}: {type(error).__name__}: {error}")
            continue
        codes.append(outcome[0])
        if wrong := _wrong(*outcome):
            found.append(f"{words}: {wrong}: {outcome[1:]}")
    assert not found, f"FUZZ_SEED={SEED}:\n" + "\n".join(found)
    assert {code: codes.count(code) > LINES // 20 for code in (0, 1, 2)} == {0: True, 1: True, 2: True}
