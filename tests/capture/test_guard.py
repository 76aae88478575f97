from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_astro.capture.guard import undisturbed
from tests.families import build


def test_flags_are_restored_after_an_error() -> None:
    model = build("hybrid")
    frozen = next(model.parameters()).requires_grad_(False)
    model.blocks[1].attn.fused_attn = False
    during = []

    def fail() -> None:
        with undisturbed(model):
            during.append((any(p.requires_grad for p in model.parameters()), model.blocks[1].attn.fused_attn))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert during == [(False, True)]
    assert not frozen.requires_grad
    assert all(p.requires_grad for p in model.parameters() if p is not frozen)
    assert model.blocks[1].attn.fused_attn is False


def test_train_mode_keeps_statistics_and_random_state() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout()).train()
    before, random = model[0].running_mean.clone(), torch.get_rng_state()
    with undisturbed(model):
        model(torch.randn(4, 3))
    assert torch.equal(before, model[0].running_mean)
    assert torch.equal(random, torch.get_rng_state())
    assert model.training
