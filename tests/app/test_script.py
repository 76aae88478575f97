from __future__ import annotations

import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from captum_astro.app.networks import Networks
from captum_astro.app.script import command_of, python_of
from captum_astro.app.settings import Settings
from captum_astro.app.wish import ModelWish
from captum_astro.cli import main
from tests.app.making import IMAGE, VITA, made
from tests.models.tiny_clip import NAME, tiny_clip


@pytest.mark.parametrize("name", ['../it\'s a "cat"; rm -rf ~.png', "-cat.png", "katze \U0001f408.png"])
@pytest.mark.parametrize("changes", [{}, {"vita": VITA, "crop": "squash", "against": 8}], ids=["plain", "vita"])
def test_copied_code_and_command_give_the_maps(
    networks: Networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, changes: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    IMAGE.save(name)
    found = made(networks, image=name, **changes)
    Path("copied.py").write_text(python_of(found.wish, found.targets))
    results = runpy.run_path("copied.py")["results"]
    assert len(results) == len(found.results)
    for one, other in zip(results, found.results, strict=True):
        assert torch.equal(one.attributions, other.attributions)
        assert one.target == other.target
    assert Path("maps.png").stat().st_size > 0

    words = shlex.split(command_of(found.wish, found.targets))
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    maps = sorted(Path("maps").glob("*.npy"))
    assert len(maps) == len(found.results)
    for file, result in zip(maps, found.results, strict=True):
        assert np.array_equal(np.load(file), result.attributions[0].sum(0).numpy())


def test_copied_code_of_an_image_text_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_clip(tmp_path)
    monkeypatch.chdir(tmp_path)
    IMAGE.save("noise.png")
    wished = ModelWish(NAME, "tiny.pt", ("a cat", 'a "dog\'s" house'))
    found = made(Networks(Settings(tmp_path)), model=wished, target=1)
    Path("copied.py").write_text(python_of(found.wish, found.targets))
    [result] = runpy.run_path("copied.py")["results"]
    assert torch.equal(result.attributions, found.results[0].attributions)
    assert result.target == found.targets[0]
    assert result.target.name == wished.prompts[1]
    assert command_of(found.wish, found.targets).startswith("# texts are a matter for Python")
