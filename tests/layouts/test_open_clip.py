"""open_clip's image encoders: the same maps as timm's with the same weights, and the forms that timm does not have."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

import pytest
import timm.models.vision_transformer
import torch
from torch import nn

from captum_astro import UnsupportedModelError, check
from captum_astro.layouts.base import _REGISTRY, layout_for
from captum_astro.layouts.blocks import _BLOCKS
from tests.families import SMALL, images
from tests.libraries import assert_same_maps, every_method, loaded, renamed, skip_undefined, without_relu

pytest.importorskip("open_clip", reason="the extra 'open_clip' is not installed")
from open_clip.timm_model import TimmModel
from open_clip.transformer import LayerNorm, QuickGELU, VisionTransformer

_vit = partial(VisionTransformer, 32, 8, 24, 3, 3, 4.0, output_dim=5)


def _random(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3 if parameter.ndim < 2 else 1.2 * parameter[0].numel() ** -0.5)
    return model.double().eval()


def _of_timm(activation: type[nn.Module]) -> nn.Module:
    model = _random(timm.models.vision_transformer.VisionTransformer(**SMALL, pre_norm=True, act_layer=activation))
    nn.init.zeros_(model.head.bias)  # open_clip's projection has none
    return model


def _from_timm(theirs: nn.Module, activation: type[nn.Module]) -> nn.Module:
    names = {
        "cls_token": "class_embedding", "pos_embed": "positional_embedding", "patch_embed.proj": "conv1",
        "norm_pre": "ln_pre", "blocks.": "transformer.resblocks.", "norm1": "ln_1", "norm2": "ln_2",
        "qkv.": "in_proj_", "attn.proj": "attn.out_proj", "fc1": "c_fc", "fc2": "c_proj", "head.weight": "proj",
    }  # fmt: skip
    tensors = renamed({key: value for key, value in theirs.state_dict().items() if key != "head.bias"}, names)
    tensors = {"ln_post" + key[4:] if key.startswith("norm.") else key: value for key, value in tensors.items()}
    tensors["class_embedding"] = tensors["class_embedding"].flatten()
    tensors["positional_embedding"] = tensors["positional_embedding"][0]
    tensors["proj"] = tensors["proj"].T
    return loaded(_vit(act_layer=activation, norm_layer=partial(LayerNorm, eps=1e-6)), tensors)


@every_method
@pytest.mark.parametrize("activation", [nn.GELU, timm.layers.QuickGELU], ids=lambda a: a.__name__)
def test_maps_equal_those_of_timm(method: Any, activation: type[nn.Module]) -> None:
    theirs = _of_timm(activation)
    assert_same_maps(method, theirs, _from_timm(theirs, nn.GELU if activation is nn.GELU else QuickGELU), images("cls"))


_CUSTOM = {"qk_norm": True, "scale_heads": True, "scale_attn_inner": True, "scale_attn": True, "scale_fc": True}
FORMS: dict[str, dict[str, Any]] = {
    "average": {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True},
    "layer scale": {"ls_init_value": 0.5, "image_size": (32, 48), "patch_size": (8, 12)},
    "custom": {"block_type": "custom", "ls_init_value": 0.5, **_CUSTOM},
    "custom, plain": {"block_type": "custom"},
    "coca": {"attentional_pool": True, "attn_pooler_queries": 6, "attn_pooler_heads": 1, "output_dim": 8},
    "coca, average": {
        "attentional_pool": True, "attn_pooler_queries": 6, "attn_pooler_heads": 2, "output_dim": 8, "pool_type": "avg",
    },
}  # fmt: skip


def _form(name: str) -> nn.Module:
    given = {"image_size": 32, "patch_size": 8, "width": 24, "layers": 2, "heads": 3, "mlp_ratio": 2.0, "output_dim": 5}
    return _random(VisionTransformer(**(given | FORMS[name])))


def _images(name: str) -> torch.Tensor:
    return torch.rand(2, 3, 32, 48 if name == "layer scale" else 32, dtype=torch.float64)


@pytest.mark.parametrize("name", FORMS)
def test_the_identity_holds(name: str) -> None:
    report = check(_form(name), _images(name))
    assert report.ok, str(report)
    assert max(stage.error for stage in report.stages) < 1e-12
    assert (report.prefix, report.grid) == (1, (4, 4))


@every_method
@pytest.mark.parametrize("name", ["custom", "coca, average"])
def test_a_batch_equals_single_calls(method: Any, name: str) -> None:
    explained, x, options = method(_form(name)), _images(name), without_relu(method)
    skip_undefined(method, explained.forward_func, x=x)
    whole = explained.attribute(x, target=[1, 2], **options)
    each = torch.cat([explained.attribute(x[i : i + 1], target=i + 1, **options) for i in range(2)])
    assert whole.shape == x.shape
    assert whole.abs().max() > 0
    assert (whole - each).abs().max() <= 1e-9 * whole.abs().max()


def test_timm_towers_have_timms_layout() -> None:
    tower = TimmModel("test_vit", 6, image_size=32).double().eval()
    assert layout_for(tower).model is tower.trunk
    assert check(tower, torch.rand(2, 3, 32, 32, dtype=torch.float64)).ok


@pytest.mark.parametrize("options", [{"pool_type": "none"}, {"attentional_pool": "parallel"}], ids=str)
def test_other_poolings_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError, match="pool_type='tok' or 'avg'"):
        layout_for(_vit(attn_pooler_heads=1, **options))


def test_every_class_with_a_layout_exists() -> None:
    paths = [key for key in (*_REGISTRY, *_BLOCKS) if isinstance(key, str) and key.startswith("open_clip.")]
    assert len(paths) == 3
    for path in paths:
        module, _, name = path.rpartition(".")
        assert isinstance(getattr(import_module(module), name), type)
