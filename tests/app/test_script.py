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
from captum_astro.cli import main
from tests.app.making import IMAGE, VITA, made


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
