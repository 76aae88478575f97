"""A warning points at the line of the user's own code."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import pytest
import torch
from captum.attr import NoiseTunnel

from captum_astro import AttentionGradCAM, VTranM, explainers
from captum_astro.caller import warn
from captum_astro.metrics.quantus import quantus_explain
from tests.families import build, images


def _here() -> int:
    """The line of the caller."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def _check(found: list[warnings.WarningMessage], message: str, line: int) -> None:
    mine = [one for one in found if message in str(one.message)]
    assert mine
    assert {(one.filename, one.lineno) for one in mine} == {(__file__, line)}


def _random_model() -> Any:
    model = build("cls", torch.float32)
    model.blocks[0].attn.proj_drop.p = 0.5
    return model.train()


@pytest.mark.parametrize("method", [explainer.method for explainer in explainers()], ids=lambda m: m.__name__)
def test_every_method(method: Any) -> None:
    x, explain = images("cls", dtype=torch.float32), method(_random_model())
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        line = _here() + 1
        explain.attribute(x, target=1)
    _check(found, "train mode", line)


def test_calling_libraries_are_skipped() -> None:
    x, model = images("cls", dtype=torch.float32), _random_model()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        line = _here() + 1
        NoiseTunnel(VTranM(model)).attribute(x, nt_samples=2, target=1)
    _check(found, "train mode", line)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        line = _here() + 1
        quantus_explain(VTranM)(model, x.numpy(), [1, 1, 1])
    _check(found, "train mode", line)
    with warnings.catch_warnings(record=True) as found, torch.no_grad():
        warnings.simplefilter("always")
        line = _here() + 1
        VTranM(model).contribution_map(x, target=1)
    _check(found, "train mode", line)


def test_other_warnings() -> None:
    x, model = images("cls"), build("cls")
    with torch.no_grad():
        model.head.weight.zero_()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        line = _here() + 1
        AttentionGradCAM(model).attribute(x, target=1)
    _check(found, "zero everywhere", line)
    model.reset_classifier(0)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        line = _here() + 1
        VTranM(model).attribute(x, target=1)
    _check(found, "no classifier", line)


def test_from_an_unnamed_module() -> None:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        exec(compile("warn('hello')", "users.py", "exec"), {"warn": warn})
    assert found[0].filename == "users.py"
