"""Encoders of image patches (SAM, Qwen3, DeepSeek, Gemma 4): against explicit matrices, and where their maps lie."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from captum_astro import (
    AttentionGradCAM,
    AttentionRollout,
    AttnLRP,
    UnsupportedModelError,
    VTranM,
    check,
)
from captum_astro.layouts import layout_for
from tests import twin_encoders  # noqa: F401  (describes the encoders)
from tests import twin_layers as twin
from tests.comparing import ROWS, assert_close, tokens
from tests.families import ENCODERS, build, images

every_model = pytest.mark.parametrize("name", ENCODERS)
pytestmark = pytest.mark.filterwarnings("ignore:.* has no classifier")
T = torch.Tensor

GRIDS = {"sam": (5, 4), "sam_plain_neck": (5, 4), "sam_rope": (5, 5), "qwen3": (4, 6), "gemma4": (4, 6)}
GRIDS |= {"deepseek": (4, 5)}


def _target(name: str) -> Any:
    """An output of one token, where there is no average; a feature map is indexed by row and column."""
    tokens = {"qwen3_encoder": (1,), "deepseek_encoder": (1,), "gemma4_encoder": (1,), "qwen3_features": (0, 1)}
    return (*tokens[name], 3) if name in tokens else 3


@every_model
def test_the_identity_holds(name: str) -> None:
    report = check(build(name), images(name, 2))
    assert report.ok, str(report)
    assert max(stage.error for stage in report.stages) < 1e-12
    assert report.grid == GRIDS.get(name, GRIDS.get(name.split("_", maxsplit=1)[0]))
    assert not report.approximate


@every_model
def test_vtranm(name: str) -> None:
    model, taken = twin.of_model(name, _target(name))
    x, tolerance = images(name, 1), 1e-6 if name == "gemma4_encoder" else 1e-9  # its pooler computes in float32
    assert_close(tokens(VTranM, model, x, _target(name)), twin.vtranm(taken), tolerance)
    # at the published gain the map stays close to the identity: here the rest of it shows
    assert_close(tokens(VTranM, model, x, _target(name), gain=1e4), twin.vtranm(taken, 1e4), tolerance)


@every_model
def test_rollout(name: str) -> None:
    model, taken = twin.of_model(name, _target(name))
    assert_close(tokens(AttentionRollout, model, images(name, 1), _target(name)), twin.rollout(taken))


@every_model
@pytest.mark.parametrize("method", ROWS, ids=lambda m: m.__name__)
@pytest.mark.one_in(3)
def test_a_batch_equals_single_calls(method: Any, name: str) -> None:
    model, x, target = build(name), images(name, 2), _target(name)
    given = {"relu_attributions": False} if method is AttentionGradCAM else {}
    whole = method(model).attribute(x, target=target, **given)
    each = [method(model).attribute(one[None], target=target, **given) for one in x]
    assert whole.shape == x.shape
    assert_close(whole, torch.cat(each))


@every_model
def test_unseen_tokens_get_no_relevance(name: str) -> None:
    """Without biases and positions in the patch embedding, tokens whose patch is not seen are vectors of zeros."""
    model, x = build(name), images(name, 1)
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if "pos_embed" in path or "position" in path or path.endswith("patch_embed.proj.bias"):
                parameter.zero_()
    level = 0.5 if name.startswith("gemma4") else 0.0  # what its patch embedding subtracts
    rows, columns = layout_for(model).grid(*x.shape[2:])
    corner = torch.full_like(x, level)
    corner[..., -16:, :8] = x[..., -16:, :8]
    grid = VTranM(model).attribute(corner, target=_target(name), attribute_to="grid", gain=1e4)[0, 0]
    inside = torch.zeros(rows, columns, dtype=torch.bool)
    inside[x.shape[2] // 8 - 2 :, 0] = True
    assert grid.shape == (rows, columns)
    assert not grid[~inside].any()
    if "encoder" not in name and "features" not in name:  # the token explained may read another cell
        assert grid[inside].all()


def test_the_target_says_which_token_is_explained() -> None:
    """Of an encoder without blocks' influence, a soft token reads its own cell."""
    model, x = build("gemma4_encoder"), images("gemma4_encoder", 1)
    with torch.no_grad():
        for block in model.blocks:
            block.norm2.weight.zero_()
            block.norm4.weight.zero_()
    grid = VTranM(model).attribute(x, target=(4, 0), attribute_to="grid")[0, 0]
    assert grid.nonzero().tolist() == [[2, 2], [2, 3], [3, 2], [3, 3]]
    with pytest.raises(AssertionError, match="pass target="):
        AttentionRollout(model).attribute(x)


def test_a_clamp_that_acts_is_refused() -> None:
    model, x = build("gemma4"), images("gemma4", 1)
    model.encoder.blocks[0].attn.o_proj.input_max.fill_(0.1)
    with pytest.raises(UnsupportedModelError, match=r"blocks.0.attn is something other"):
        VTranM(model).attribute(x, target=1)
    model.set_clamp_enabled(False)
    assert VTranM(model).attribute(x, target=1).any()


MODULES = ("vision_transformer_sam", "qwen3_vit", "deepseek_vit", "gemma4_vit")


@pytest.mark.parametrize("name", [name for module in MODULES for name in timm.list_models(module=module)])
def test_timm_models_by_name(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, depth=1)
    layout = layout_for(model)
    assert layout.stages
    assert layout.per_position == name.endswith("_enc")


def test_a_pooling_without_weights_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="Create it with global_pool='avg'"):
        layout_for(timm.create_model("samvit_base_patch16_224", depth=1, global_pool="max"))


@pytest.mark.parametrize("name", [name for name in ENCODERS if name.endswith("_encoder")])
def test_an_output_for_each_token_that_a_wrapper_joins_is_refused(name: str) -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = build(name)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(x).mean(1)

    model, x = Mean(), images(name)
    with pytest.raises(UnsupportedModelError, match=r"an output for each token.* Explain the model itself"):
        VTranM(model).attribute(x, target=3)
    assert AttnLRP(model).attribute(x, target=3).abs().amax((1, 2, 3)).gt(0).all()
