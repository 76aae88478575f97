"""The modules of a model, in PyTorch's order."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from captum_astro.layouts.walk import modules_of


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "maxvit_rmlp_pico_rw_256"])
def test_those_of_pytorch_in_its_order(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    assert modules_of(model) == list(model.modules())


def test_a_shared_module_once_and_no_empty_place() -> None:
    shared = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    model = nn.Sequential(nn.Sequential(nn.Identity(), shared), shared, nn.ModuleDict({"again": shared[0]}))
    model.register_module("nothing", None)
    assert modules_of(model) == list(model.modules())


def test_a_module_that_contains_itself() -> None:
    model = nn.Sequential(nn.ReLU())
    model[0].add_module("around", model)
    assert modules_of(model) == list(model.modules())


def test_a_compiled_part() -> None:
    model = nn.Sequential(torch.jit.script(nn.Sequential(nn.ReLU())), nn.Linear(2, 2))
    assert [type(x) for x in modules_of(model)] == [type(x) for x in model.modules()]
