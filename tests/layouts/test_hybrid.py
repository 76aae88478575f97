"""What is special to the families in `tests.hybrid_families`; `test_stages` has what they share with others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from torch import nn

from captum_astro import TokenGradCAM, UnsupportedModelError, VTranM
from captum_astro.functional.token_map import convolution_map
from captum_astro.layouts import layout_for
from captum_astro.layouts.steps import Tap
from tests import hybrid_families  # noqa: F401  (describes the families)
from tests.comparing import assert_close
from tests.families import build, images

pytestmark = pytest.mark.filterwarnings("ignore:.* mixes tokens where")


def test_images_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"resizes 8 x 11 tokens .* multiples of 64"):
        VTranM(build("mobilevit")).attribute(torch.rand(1, 3, 64, 88, dtype=torch.float64), target=1)


@pytest.mark.parametrize("name", ["iformer", "shvit", "efficientvit_msra", "botnet", "halonet"])
def test_values_without_a_weight_need_the_norm(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match="Leave out include_norm=False"):
        VTranM(build(name)).attribute(images(name, 1), target=1, include_norm=False)


def test_a_fused_model_has_the_same_map() -> None:
    """Positions and the convolutions between the stages are parts of one convolution then."""
    model, x = build("fastvit_mci"), images("fastvit_mci", 2)
    expected = VTranM(model).attribute(x, target=1)
    for module in list(model.modules()):
        if hasattr(module, "reparameterize"):
            module.reparameterize()
    assert_close(VTranM(model.double()).attribute(x, target=1), expected)


@pytest.mark.parametrize("shared", [True, False])
def test_a_wrong_description_is_refused(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the tokens after a convolution, or of what attention adds past an activation."""
    name = "fastvit_mci" if shared else "shvit"
    made = layout_for(build(name)).__class__.__init__

    def init(self: Any, model: nn.Module) -> None:
        made(self, model)
        for index, stage in enumerate(self.stages):
            if shared and stage.merging is not None and stage.merging.name == "stages.2.pos_emb":
                merging = replace(stage.merging, tokens=lambda grid: convolution_map(grid, (2, 2), (2, 2)))
                self.stages[index] = replace(stage, merging=merging)
            elif not shared and stage.branches and stage.branches[0].name == "stages.1.blocks.0.mixer":
                wrong = replace(stage.branches[0], output=Tap(model.stages[1].blocks[0].ffn, channels="first"))
                self.stages[index] = replace(stage, branches=(wrong,))

    monkeypatch.setattr(type(layout_for(build(name))), "__init__", init)
    with pytest.raises(UnsupportedModelError, match=r"other than the layout says|is for .* tokens"):
        VTranM(build(name)).attribute(images(name, 1), target=1)


def test_grad_cam_reads_the_features_that_a_head_pools() -> None:
    """No block has attention, whose tokens would be read."""
    model, x = build("resnet_clip"), images("resnet_clip", 2)
    expected = TokenGradCAM(model, "final_conv").attribute(x, target=1)
    assert_close(TokenGradCAM(model).attribute(x, target=1), expected)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("fastvit_sa12", 32),
        ("mobilevit_xxs", 8),
        ("botnet26t_256", 16),
        ("halonet_h1", 4),
        ("resnet50_clip", 32),
        ("efficientformerv2_s0", 16),
        ("nextvit_small", 8),
        ("shvit_s1", 32),
    ],
)
def test_cells_of_timm_models(name: str, pixels: int) -> None:
    """The pixels of a token that enters the first attention."""
    with torch.device("meta"):
        model = timm.create_model(name)
    assert layout_for(model).grid(256, 256) == (256 // pixels, 256 // pixels)
