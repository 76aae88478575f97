"""What type checkers make of `captum_astro.explain`: mypy reads this file, and nothing runs it."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import nn
from typing_extensions import assert_type

from captum_astro import explain
from captum_astro.explaining.result import Result, Results


def _typed(model: nn.Module, image: Image.Image, x: torch.Tensor, indices: list[int], names: list[str]) -> None:
    assert_type(explain(model, "cat.jpg"), Result)
    assert_type(explain("vit_tiny_patch16_224", Path("cat.jpg"), "LRP", 281, crop="none"), Result)
    assert_type(explain(model, image, target="lynx", names=names), Result)
    assert_type(explain(model, image, "all"), Results)
    assert_type(explain(model, image, "all", target=indices), Results)
    assert_type(explain(model, image, ["LRP", "VTranM"]), Results)
    assert_type(explain(model, image, names, "lynx"), Results)
    assert_type(explain(model, image, "LRP", indices), Results)
    assert_type(explain(model, image, target=["lynx", 3]), Results)
    assert_type(explain(model, image, target=range(3)), Results)
    assert_type(explain(model, [image, "cat.jpg"]), Results)
    assert_type(explain(model, [x, x], "LRP", 3), Results)
    assert_type(explain(model, x, target=names), Results)
    assert_type(explain(model, x), Result | Results)  # (C, H, W) or (B, C, H, W)
