"""Methods on a GPU give what they give on the CPU."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from scipy.stats import spearmanr
from torch import nn

from captum_astro import AttentionGradCAM, LeGrad, ProjectedFlow, ViTAGradCAM, explainers
from captum_astro.functional import fused
from tests.comparing import ROWS, assert_close, tokens
from tests.families import build, images

DEVICE = "cuda"
METHODS = {one.name: one.method for one in explainers() if not issubclass(one.method, ViTAGradCAM)}
# whose half precision is no more than rounding
STEADY = ("AttentionRollout", "LeGrad", "RawAttention", "TransformerMM", "VTranM")


@pytest.fixture(scope="module")
def vit() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", img_size=64, patch_size=8, depth=4, num_classes=10).eval()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 3, 64, 64)


def explained(method: Any, model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The relevance of the first image's tokens, with negative values: without them, some maps are 0."""
    return tokens(method, model, x, 3, **({"relu_attributions": False} if method is AttentionGradCAM else {}))


def _on_both(method: Any, model: nn.Module, x: torch.Tensor) -> None:
    expected = explained(method, model, x)
    got = explained(method, copy.deepcopy(model).to(DEVICE), x.to(DEVICE))
    assert got.device.type == DEVICE
    assert_close(got.cpu(), expected, 1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_every_method(name: str, vit: nn.Module, x: torch.Tensor) -> None:
    _on_both(METHODS[name], vit, x)


@pytest.mark.parametrize("family", ["beit", "dinov3", "grouped_query", "map_pooling", "swin_padded", "naflex"])
@pytest.mark.parametrize("method", [*ROWS, LeGrad, ProjectedFlow], ids=lambda method: method.__name__)
def test_biases_windows_and_groups(method: Any, family: str) -> None:
    _on_both(method, build(family, torch.float32), images(family, 1, torch.float32))


@pytest.mark.parametrize("name", METHODS)
def test_the_kernel_changes_nothing(
    name: str, vit: nn.Module, x: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = copy.deepcopy(vit).to(DEVICE), x.to(DEVICE)
    got = explained(METHODS[name], model, x)
    monkeypatch.setenv(fused.SWITCH, "0")
    assert_close(got, explained(METHODS[name], model, x), 1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", METHODS)
def test_half_precision(name: str, dtype: torch.dtype, vit: nn.Module, x: torch.Tensor) -> None:
    exact = explained(METHODS[name], vit, x)
    found = explained(METHODS[name], copy.deepcopy(vit).to(DEVICE, dtype), x.to(DEVICE, dtype)).float().cpu()
    assert found.isfinite().all()
    if name in STEADY:
        assert spearmanr(found, exact).statistic > 0.98


@pytest.mark.parametrize("name", STEADY)
def test_autocast(name: str, vit: nn.Module, x: torch.Tensor) -> None:
    exact = explained(METHODS[name], vit, x)
    model = copy.deepcopy(vit).to(DEVICE)
    with torch.autocast(DEVICE, torch.bfloat16):
        found = explained(METHODS[name], model, x.to(DEVICE))
    assert found.dtype == torch.float32
    assert spearmanr(found.cpu(), exact).statistic > 0.98
