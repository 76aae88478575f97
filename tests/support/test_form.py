from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from captum_astro.support.form import Form, kind_of, smallest, trial


@pytest.mark.parametrize(
    ("name", "options", "side"),
    [
        ("vit_small_patch14_dinov2", {"depth": 2, "img_size": 64}, 64),
        ("swin_tiny_patch4_window7_224", {"depths": (2, 2, 2, 2), "img_size": 64}, 64),
        ("samvit_base_patch16", {"depth": 4, "img_size": 64}, 64),  # the first two layers have windows only
        ("resnet101", {"layers": (2, 2, 2, 2)}, 64),
        ("levit_128s", {}, 224),  # made for one size
    ],
)
def test_smallest_form_has_all_parts_and_runs(name: str, options: dict[str, Any], side: int) -> None:
    form = smallest(name)
    assert (form.options, form.image) == (options, (3, side, side))
    assert kind_of(name, **form.options).digest == kind_of(name).digest
    before = torch.get_rng_state()
    model, again = form.build(), form.build()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert len(model(form.images(2))) == 2


def test_kinds_differ_by_what_is_switched_on() -> None:
    same = {kind_of(f"vit_{size}_patch16_224").digest for size in ("tiny", "small", "base")}
    assert len(same) == 1
    others = {
        kind_of(name).digest
        for name in ("vit_tiny_r_s16_p8_224", "vit_small_patch14_reg4_dinov2", "vit_srelpos_small_patch16_224")
    }
    assert len(others | same) == 4


def test_random_weights_let_something_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def dead(self: Form, gain: float = 1.0) -> nn.Module:
        asked.append(gain)
        model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
        if gain == 1:
            nn.init.zeros_(model[-1].weight)
        return model

    monkeypatch.setattr(Form, "build", dead)
    trial("resnet10t")
    assert asked == [1.0, 2**0.5]


def test_layers_that_do_not_fit_together_are_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    fine = Form.build

    def build(self: Form, gain: float = 1.0) -> nn.Module:
        return nn.Conv2d(4, 4, 1) if self.shorter else fine(self, gain)

    monkeypatch.setattr(Form, "build", build)
    form, model = trial("vit_tiny_patch16_224")
    assert not form.shorter
    assert len(model.blocks) == 12
    assert model(form.images()).shape == (1, 1000)
