from __future__ import annotations

import pytest
import timm
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

from captum_astro import UnsupportedModelError, VTranM, check, register_layout
from captum_astro.layouts.base import _REGISTRY
from captum_astro.layouts.vision_transformer import VisionTransformerLayout
from tests.families import FAMILIES, HIERARCHICAL, SMALL, build, images


@pytest.mark.parametrize("name", [*FAMILIES, *HIERARCHICAL])
def test_every_family_is_rebuilt(name: str) -> None:
    report = check(build(name), images(name))
    assert report.ok
    assert max(stage.error for stage in report.stages) < 1e-12
    assert report.prefix + report.grid[0] * report.grid[1] == report.tokens
    assert f"passed at {1e-10:.0e}" in str(report)
    single = check(build(name, torch.float32), images(name, dtype=torch.float32))
    assert single.ok
    assert single.tolerance > report.tolerance


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_identical_tokens(level: float) -> None:
    """A blank image, where all patches are identical: only rounding is compared."""
    model = Eva(**SMALL, class_token=False, global_pool="avg", use_abs_pos_emb=False, use_rot_pos_emb=True).eval()
    assert VTranM(model).attribute(torch.full((1, 3, 32, 32), level), target=1).isfinite().all()


class Lying(VisionTransformer):
    """A model whose layers are summed differently from what its class says."""


@pytest.fixture
def wrong_layout() -> object:
    yield
    _REGISTRY.pop(Lying, None)


def test_wrong_layout_is_rejected(wrong_layout: object) -> None:
    @register_layout(Lying)
    class NoFeedForward(VisionTransformerLayout):
        def __init__(self, model: torch.nn.Module) -> None:
            super().__init__(model)
            del self.stages[3]

    torch.manual_seed(0)
    model = Lying(**SMALL).eval().double()
    x = images("cls")
    report = check(model, x)
    assert not report.ok
    assert [stage.name for stage in report.stages if stage.error > 1e-10] == ["blocks.1.attn"]
    assert "NOT REBUILT" in str(report)
    assert "FAILED" in str(report)
    with pytest.raises(UnsupportedModelError, match=r"blocks\.1\.attn is something other"):
        VTranM(model).attribute(x, target=1)


def test_timm_models_by_name() -> None:
    """Registered models of every family, with their own options; weights initialised by timm."""
    for name in (
        "test_vit",
        "test_vit2",
        "test_vit3",
        "test_vit4",
        "vit_tiny_patch16_224",
        "vit_tiny_r_s16_p8_224",
        "vit_small_patch14_reg4_dinov2",
        "deit_tiny_distilled_patch16_224",
        "eva02_tiny_patch14_224",
        "vit_small_patch16_dinov3",
        "vit_relpos_small_patch16_224",
        "vit_srelpos_small_patch16_224",
        "vitamin_small_224",
        "naflexvit_base_patch16_gap",
        "vit_little_patch16_reg1_gap_256",
        "vit_dlittle_patch16_reg1_gap_256",
        "vit_pwee_patch16_reg1_gap_256",
        "vit_dpwee_patch16_reg1_gap_256",
    ):
        depth = {} if name.startswith(("test", "vitamin")) else {"depth": 2}
        config = timm.get_pretrained_cfg(name)
        torch.manual_seed(0)
        model = timm.create_model(name, **depth).eval().double()
        report = check(model, torch.randn(1, *config.input_size, dtype=torch.float64))
        assert report.ok, f"{name}\n{report}"


def test_report_names_approximate_parts_and_fits_a_terminal() -> None:
    report = check(build("maxvit"), images("maxvit", 1))
    rules = {stage.name: stage.approximate for stage in report.stages if stage.approximate}
    assert rules
    assert all("attributed to" in rule for found in rules.values() for rule in found)
    assert str(report).count("  approximate\n") == len(rules)
    assert max(map(len, str(report).splitlines())) <= 80
