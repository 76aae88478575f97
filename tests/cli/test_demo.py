"""``captum-astro demo``."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from tests.commands import run_command


def test_demo(monkeypatch, capsys, tmp_path: Path) -> None:
    code, out = run_command(monkeypatch, capsys, "demo", "--out", tmp_path / "demo.png", "--scenes", 20)
    assert code == 0, out
    assert "ViT: " in out
    assert "astromorphic: " in out
    assert "By chance" in out
    assert Image.open(tmp_path / "demo.png").size[0] > 500
    code, out = run_command(monkeypatch, capsys, "demo", "--out", tmp_path / "missing" / "demo.png", "--scenes", 2)
    assert code == 1
    assert f"there is no folder {tmp_path / 'missing'}; create it first" in out
    code, out = run_command(monkeypatch, capsys, "demo", "--out", tmp_path / "noext")
    assert code == 1
    assert f"The picture must be a file whose name ends in .png, not '{tmp_path / 'noext'}'" in out


def test_the_maps_lie_on_the_digits(monkeypatch, capsys, tmp_path: Path) -> None:
    code, said = run_command(monkeypatch, capsys, "demo", "-n", 20, "-o", tmp_path / "demo.png")
    assert code == 0, said
    chance = float(re.search(r"By chance, ([\d.]+)%", said)[1])
    shares = [float(share) for share in re.findall(r"puts ([\d.]+)%", said)]
    assert len(shares) > 1
    assert min(shares) > 2 * chance


def test_a_number_of_scenes_that_is_none(monkeypatch, capsys, tmp_path: Path) -> None:
    code, said = run_command(monkeypatch, capsys, "demo", "-n", 0, "-o", tmp_path / "demo.png")
    assert code == 2
    assert "a whole number from 1 to 10,000, not '0'" in " ".join(said.split())
    assert not [*tmp_path.iterdir()]
