"""Families with convolutions, poolings or reduced keys: against explicit matrices, and where their maps lie."""

from __future__ import annotations

import re
from typing import Any

import pytest
import timm
import torch
from torch import nn

from captum_astro import (
    ATTCAT,
    AttentionGradCAM,
    AttentionRollout,
    RawAttention,
    TransformerAttribution,
    TransformerMM,
    UnsupportedModelError,
    VTranM,
    check,
)
from captum_astro.layouts import layout_for
from tests import (
    staged_families,
    twin_families,  # noqa: F401  (describes the families)
    twin_stages,  # noqa: F401
)
from tests import twin_layers as twin
from tests.families import MIXED, build, images

TARGET = 3
ROWS = (VTranM, RawAttention, AttentionRollout, TransformerMM, ATTCAT, AttentionGradCAM, TransformerAttribution)
every_model = pytest.mark.parametrize("name", MIXED)
pytestmark = pytest.mark.filterwarnings("ignore:.* mixes tokens where")
T = torch.Tensor

# the grid of each tiny model, and what it is approximate about: parts of the sentences, none if it is exact
EXPECTED: dict[str, tuple[tuple[int, int], tuple[str, ...]]] = {
    "pvt_v2": ((10, 13), ("stages.0.blocks.0.mlp and 4 more: its depthwise convolution",)),
    "twins_svt": ((10, 8), ("pos_block.0 and 1 more: this convolution",)),
    "twins_pcpvt": ((9, 7), ("pos_block.0 and 1 more: this convolution",)),
    "davit": ((10, 8), ("stages.0.blocks.0.0.cpe1 and 15 more: this convolution",)),
    "davit_overlapping": ((7, 9), ("stages.0.blocks.0.channel_block.cpe1 and 15 more: this convolution",)),
    "maxvit": ((12, 16), ("stages.0.blocks.0.conv and 2 more: its depthwise",)),
    "maxvit_tf": ((12, 16), ("stages.0.blocks.0.conv and 2 more: its depthwise",)),
    "maxxvit": ((12, 16), ("stages.0.blocks.0.conv and 2 more: its depthwise",)),
    "coatnet": (
        (12, 16),
        ("stages.0.blocks.0 and 1 more: its depthwise", "stages.1.blocks.0.attn: its queries and keys are averages"),
    ),
    "nest": ((12, 12), ("levels.1.pool.pool: each channel is the maximum",)),
    "nest_jx": ((12, 12), ("levels.1.pool.pool: each channel is the maximum",)),
    "gcvit": ((8, 12), ("stages.1.downsample.conv_block: its depthwise",)),
    "tiny_vit": ((9, 7), ("stages.0.blocks.0 and 1 more: its depthwise",)),
    "hiera": ((8, 16), ("blocks.2.proj and 1 more: each channel is the maximum",)),
    "hiera_windows": ((8, 16), ("blocks.2.proj: each channel is the maximum",)),
    "caformer": ((7, 9), ("stages.0.blocks.0.token_mixer and 1 more: its depthwise",)),
    "cait": ((5, 3), ()),
    "convit": ((4, 4), ()),
    "pit": ((9, 5), ()),
    "pit_distilled": ((9, 5), ()),
} | staged_families.EXPECTED


def _tokens(method: Any, model: nn.Module, x: T, **options: Any) -> T:
    return method(model).attribute(x, target=TARGET, attribute_to="tokens", **options)[0]


def _close(got: T, expected: T, tolerance: float = 1e-9) -> None:
    assert got.shape == expected.shape
    assert expected.abs().max() > 0
    assert (got - expected).abs().max() <= tolerance * expected.abs().max()


@every_model
def test_the_identity_holds(name: str) -> None:
    report = check(build(name), images(name, 2))
    grid, approximate = EXPECTED[name]
    assert report.ok, str(report)
    assert max(stage.error for stage in report.stages) < 1e-12
    assert report.grid == grid
    assert len(report.approximate) == len(approximate)
    for said, expected in zip(report.approximate, approximate, strict=True):
        assert said.startswith(expected)
        assert said in " ".join(str(report).split())  # in lines of 80 characters


@every_model
def test_vtranm(name: str) -> None:
    model, taken = twin.of_model(name, TARGET)
    x = images(name, 1)
    _close(_tokens(VTranM, model, x), twin.vtranm(taken))
    # at the published gain the map stays close to the identity: here the rest of it shows
    _close(_tokens(VTranM, model, x, gain=1e4), twin.vtranm(taken, 1e4))


@every_model
def test_rollout(name: str) -> None:
    model, taken = twin.of_model(name, TARGET)
    _close(_tokens(AttentionRollout, model, images(name, 1)), twin.rollout(taken))


@every_model
@pytest.mark.parametrize("method", ROWS, ids=lambda m: m.__name__)
def test_a_batch_equals_single_calls(method: Any, name: str) -> None:
    model, x = build(name), images(name, 2)
    given = {"relu_attributions": False} if method is AttentionGradCAM else {}
    whole = method(model).attribute(x, target=[1, 2], **given)
    each = [method(model).attribute(one[None], target=c, **given) for one, c in zip(x, (1, 2), strict=True)]
    assert whole.shape == x.shape
    _close(whole, torch.cat(each))


@pytest.mark.parametrize("name", [name for name in MIXED if name != "hiera_windows"])  # it interpolates in float32 only
def test_half_precision(name: str) -> None:
    exact = VTranM(build(name)).attribute(images(name, 2), target=1).flatten(1)
    model, x = build(name, torch.bfloat16), images(name, 2, torch.bfloat16)
    found = VTranM(model).attribute(x, target=1)
    assert found.dtype == torch.bfloat16
    assert torch.cosine_similarity(found.flatten(1).double(), exact).min() > 0.99


@every_model
def test_model_and_images_are_unchanged(name: str) -> None:
    """Also in inference mode, whose tensors later passes cannot save."""
    model, x = build(name), images(name, 2)
    before, weights = x.clone(), {key: value.clone() for key, value in model.state_dict().items()}
    with torch.inference_mode():
        first = VTranM(model).attribute(x.clone(), target=1)
    assert torch.equal(VTranM(model).attribute(x, target=1), first)
    assert torch.equal(x, before)
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_a_class_token_that_joins_later_is_no_patch() -> None:
    """The heads' weights are means over the patches, and the map is of the patches alone."""
    model, x, kept = build("cait"), images("cait", 1), []
    attn = model.blocks_token_only[-1].attn
    attn.fused_attn = False
    attn.attn_drop.register_forward_pre_hook(lambda m, a: kept.append(a[0]))
    (gradient,) = torch.autograd.grad(model(x.requires_grad_())[0, TARGET], kept)
    attention, gradient = kept[0][0, :, 0].detach(), gradient[0, :, 0]  # of the class token: (H, 1 + patches)
    expected = sum(g[1:].mean() * a[1:] for a, g in zip(attention, gradient, strict=True)) / len(attention)
    got = _tokens(AttentionGradCAM, build("cait"), x.detach(), relu_attributions=False)
    _close(got, expected)


class Corner(nn.Module):
    """A model that sees only the pixels of the lower left corner."""

    def __init__(self, model: nn.Module, rows: int, columns: int) -> None:
        super().__init__()
        self.inner, self.rows, self.columns = model, rows, columns

    def forward(self, x: T) -> T:
        mask = torch.zeros_like(x[:1, :1])
        mask[..., -self.rows :, : self.columns] = 1
        return self.inner(x * mask)


# biases and positions of what is before the first stage
EMBEDDING = r"((patch|pixel)_embeds?|stem)\b.*bias|(levels\.0\.)?pos_embed|(patch|pixel)_pos|(norm\d_)?proj\.bias"


@every_model
def test_unseen_tokens_get_no_relevance(name: str) -> None:
    """Without biases and positions in the patch embedding, tokens whose patch is not seen are vectors of zeros."""
    model, x = build(name), images(name, 1)
    first = layout_for(model).stages[0].stream
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if re.match(EMBEDDING, path):
                parameter.zero_()
        for path, buffer in model.named_buffers():
            if path.startswith(("stem", "patch_embed")) and path.endswith("running_mean"):
                buffer.zero_()
    seen: list[T] = []
    cut = Corner(model, x.shape[2] // 3, x.shape[3] // 3)
    handle = first.module.register_forward_pre_hook(lambda m, a: seen.append(a[first.number]))
    cut(x)
    handle.remove()
    layout = layout_for(model)
    inside = layout.stages[0].stream.tokens(seen[0])[0, layout.num_prefix_tokens :].any(-1)
    grid = VTranM(cut).attribute(x, target=TARGET, attribute_to="grid")[0, 0]
    rows, columns = grid.shape
    assert 0 < inside.sum() < inside.numel() / 3
    assert not inside.reshape(rows, columns)[: rows // 2].any()
    assert not inside.reshape(rows, columns)[:, columns // 2 + 1 :].any()
    assert torch.equal(grid.flatten() > 0, inside)


# What is said


@pytest.mark.filterwarnings("default:.* mixes tokens where")
def test_approximation_is_said_once() -> None:
    model, x = build("pvt_v2"), images("pvt_v2", 3)
    with pytest.warns(UserWarning, match="PyramidVisionTransformerV2 mixes tokens where VTranM is only") as said:
        VTranM(model).attribute(x, target=1, internal_batch_size=1)
    assert len(said) == 1


NAMES: dict[str, dict[str, Any]] = {
    "pvt_v2": {"depths": (1, 1, 1, 1)},
    "pit": {"depth": (1, 1, 1)},
    "twins": {"depths": (2, 1, 1, 1)},
    "davit": {"depths": (1, 1, 1, 1)},
    "maxxvit": {},
    "nest": {},
    "gcvit": {},
    "tiny_vit": {},
    "hiera": {},
    "cait": {},
    "convit": {},
    "metaformer": {},
} | {module: {} for module in staged_families.MODULES}
REFUSED = {
    "pvt_v2_b2_li": "linear attention",
    "maxvit_tiny_pm_256": "side by side",
    "coatnet_rmlp_1_rw_224": "2 x 2",
} | staged_families.REFUSED


@pytest.mark.parametrize("name", [name for module in NAMES for name in timm.list_models(module=module)])
def test_timm_models_by_name(name: str) -> None:
    """Every name has a layout, or is refused with the reason; described without weights."""
    module = timm.models.model_entrypoint(name).__module__.rsplit(".", 1)[-1]
    with torch.device("meta"):
        model = timm.create_model(name, **NAMES[module])
    reason = REFUSED.get(name) or (name.startswith(("poolformer", "convformer")) and "has no attention")
    if reason:
        with pytest.raises(UnsupportedModelError, match=reason):
            layout_for(model)
    else:
        assert layout_for(model).stages


@pytest.mark.parametrize(
    ("name", "options", "way_out"),
    [
        ("pvt_v2_b0", {"global_pool": ""}, "Create it with global_pool='avg'"),
        ("davit_tiny", {"global_pool": "max"}, "Create it with global_pool='avg'"),
        ("hiera_tiny_224", {"global_pool": "max"}, "Create it with global_pool='avg'"),
        ("pit_ti_224", {"global_pool": ""}, "Create it with global_pool='token'"),
        ("cait_xxs24_224", {"global_pool": "avg"}, "Create it with global_pool='token'"),
        ("convit_tiny", {"global_pool": ""}, "global_pool='token' or 'avg'"),
        ("convit_tiny", {"local_up_to_layer": 12}, "local_up_to_layer from 1 to 11"),
        ("maxvit_pico_rw_256", {"conv_pool_type": "max"}, "conv_pool_type='avg2'"),
        *staged_families.OPTIONS,
    ],
)
def test_other_options_are_refused(name: str, options: dict[str, Any], way_out: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, **options)
    with pytest.raises(UnsupportedModelError, match=way_out):
        layout_for(model)
