"""Whether a model's output is random."""

from __future__ import annotations

import pytest
from timm.layers import DropPath, PatchDropout
from torch import nn

from captum_astro.capture.modes import check_eval, draws

RANDOM = [nn.Dropout(0.1), nn.Dropout2d(0.5), DropPath(0.1), PatchDropout(0.5), nn.BatchNorm2d(3)]


@pytest.mark.parametrize("part", RANDOM, ids=lambda part: type(part).__name__)
def test_in_train_mode_only(part: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(part))
    assert draws(model.train())
    with pytest.raises(ValueError, match=r"Sequential is in train mode\. Call model\.eval\(\) first"):
        check_eval(model)
    assert not draws(model.eval())
    check_eval(model)
    part.train()  # a part alone
    assert draws(model)
    part.eval()


def test_a_model_in_train_mode_without_anything_random() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0), nn.LayerNorm(2)).train()
    assert not draws(model)
    check_eval(model)
