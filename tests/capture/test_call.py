from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from captum_astro.capture.call import Call
from captum_astro.capture.target import Target
from tests.families import build, images


class Shifted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = build("cls")

    def forward(self, image: torch.Tensor, shift: Any = 0.0) -> torch.Tensor:
        return self.inner(image + shift)


def _run(model: nn.Module, x: torch.Tensor, *arguments: Any) -> torch.Tensor:
    return Call(model, x, Target(0), arguments).run()


def test_a_model_is_run_with_its_arguments() -> None:
    model, x = Shifted(), images("cls")
    torch.testing.assert_close(_run(model, x, 0.5), model.inner(x + 0.5))
    with torch.inference_mode():
        given = x.clone()
    with torch.enable_grad():
        assert _run(model, given, 0.0).requires_grad  # an inference tensor is copied first
    with pytest.raises(TypeError, match=r"must return a tensor of logits, not a tuple\. Wrap it"):
        _run(nn.LSTM(2, 2), torch.rand(1, 1, 2))
