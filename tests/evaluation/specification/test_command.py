"""The recorded command is read by the command line as the configuration that it was made from."""

from __future__ import annotations

import shlex
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from captum_astro.evaluation.specification import BenchConfig, ModelChoice, methods_of, metrics_of
from captum_astro.evaluation.specification.command import command_of
from captum_astro.evaluation.specification.models import model_of
from tests.commands import run_command

PLAIN = BenchConfig(
    (ModelChoice("deit_tiny_patch16_224"),), methods_of("VTranM"), "scenes", metrics_of("auc"), crop="timm"
)
A, B = (ModelChoice("deit_tiny_patch16_224", Path(name), 7) for name in ("a b.pt", "$c.pt"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"models": (A, B)},
        {"models": (model_of("vita:deit_tiny_patch16_224:layer=blocks.0.mlp.fc1:alpha=1.5"), PLAIN.models[0])},
        {"methods": methods_of("VTranM:components=:output=logit,Random,VTranM:components=length+direction")},
        {"metrics": metrics_of("pixel accuracy,blurred deletion"), "data": "folder:it's here"},
        {"limit": 3, "explained": "true", "steps": 3, "chunk_size": 2, "examples": 0, "batch_size": 5, "seed": 8},
        {"pretrained": False, "use_ema": False, "amp": "bfloat16", "crop": "none"},
    ],
)
def test_the_command_is_read_back(monkeypatch, capsys, changes: dict[str, Any]) -> None:
    config, found = replace(PLAIN, **changes), []
    cli = import_module("captum_astro.cli.bench")  # of which the package has a function with the same name
    monkeypatch.setattr(cli, "_run", lambda config, folder, strict: found.append((config, folder)))
    program, *words = shlex.split(command_of(config))
    code, out = run_command(monkeypatch, capsys, *words)
    assert (program, code) == ("captum-astro", 0), out
    assert found == [(config, Path("results"))]


@pytest.mark.parametrize("models", [(A, ModelChoice("vit_tiny_patch16_224")), (A, replace(B, classes=8))])
def test_what_no_command_says(models: tuple[ModelChoice, ...]) -> None:
    assert not command_of(replace(PLAIN, models=models))
