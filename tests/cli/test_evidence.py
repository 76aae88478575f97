"""``captum-astro evidence``."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.commands import run_command
from tests.evaluation import making


def test_from_a_benchmark_to_its_page(monkeypatch, capsys, tmp_path: Path) -> None:
    words = ["-M", making.NAME, "--no-pretrained", "--methods", "VTranM,Random", "--data", "scenes", "--limit", 2]
    words += ["--metrics", "segmentation,auc", "--steps", 3, "--out", tmp_path / "scenes"]
    code, said = run_command(monkeypatch, capsys, "bench", *words)
    assert code == 0, said
    page = tmp_path / "new" / "page.md"
    words = ["evidence", tmp_path / "scenes", "--out", page, "--title", "On scenes", "--note", "Tiny. " * 30]
    code, said = run_command(monkeypatch, capsys, *words)
    assert (code, said) == (0, f"{page}\n{page.with_suffix('.svg')}\n")
    text = page.read_text()
    assert json.loads((tmp_path / "scenes" / "run.json").read_text())["made"]["date"] in text
    assert "pixels removed in 3 steps" in text
    for block in re.findall(r"^```bash\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        assert max(map(len, block.splitlines())) <= 80
    code, said = run_command(monkeypatch, capsys, "evidence", tmp_path / "scenes", "--out", tmp_path / "page.html")
    assert code == 1
    assert said.endswith("ends in .md.\n")


def test_what_is_missing_is_named(monkeypatch, capsys, tmp_path: Path) -> None:
    code, said = run_command(monkeypatch, capsys, "evidence", "--out", tmp_path / "page.md")
    assert code == 2
    assert "FOLDER" in said
    code, said = run_command(monkeypatch, capsys, "evidence", tmp_path / "none", "--out", tmp_path / "page.md")
    assert code == 1
    assert str(tmp_path / "none") in said
    assert not [*tmp_path.iterdir()]
