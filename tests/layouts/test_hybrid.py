"""Families with convolutional stages before attention: against explicit matrices, and where their maps lie."""

from __future__ import annotations

from dataclasses import replace
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
    TokenGradCAM,
    TransformerAttribution,
    TransformerMM,
    UnsupportedModelError,
    VTranM,
    check,
)
from captum_astro.functional.token_map import convolution_map
from captum_astro.layouts import layout_for
from captum_astro.layouts.steps import Tap
from tests import twin_byobnet, twin_hybrid  # noqa: F401  (describe the families)
from tests import twin_layers as twin
from tests.families import build, images
from tests.hybrid_families import FIXED, HYBRID

TARGET = 3
ROWS = (VTranM, RawAttention, AttentionRollout, TransformerMM, ATTCAT, AttentionGradCAM, TransformerAttribution)
every_model = pytest.mark.parametrize("name", HYBRID)
pytestmark = pytest.mark.filterwarnings("ignore:.* mixes tokens where")
T = torch.Tensor

# the grid of each tiny model, and what it is approximate about: parts of the sentences, none if it is exact
EXPECTED: dict[str, tuple[tuple[int, int], tuple[str, ...]]] = {
    "fastvit": ((5, 4), ("stages.2.blocks.0.mlp and 1 more: its depthwise", "final_conv: its convolutions")),
    "fastvit_mci": (
        (9, 7),
        (
            "stages.1.blocks.0.mlp and 1 more: its depthwise",
            "stages.2.downsample and 1 more: its convolutions",
            "stages.2.pos_emb: this convolution",
        ),
    ),
    "efficientformer": ((7, 7), ()),
    "visformer": ((4, 6), ("stage3.0.mlp and 1 more: its depthwise",)),
    "mobilenet": ((12, 9), ("blocks.1.2: its depthwise", "blocks.2.0: its convolutions")),
    "lowformer": (
        (8, 12),
        ("stages.2.1.attn and 1 more: a transposed", "stages.2.1.local and 1 more: its depth", "stages.3.0: its conv"),
    ),
    "lowformer_unfused": (
        (5, 7),
        ("stages.2.1.attn and 1 more: a transposed", "stages.2.1.local and 1 more: its depth", "stages.3.0: its conv"),
    ),
    "cpubone": ((5, 7), ("stages.2.1.total.1 and 1 more: its depthwise", "stages.3.0: its convolutions")),
    "iformer": (
        (5, 7),
        ("stages.2.blocks.1 and 1 more: a gate", "stages.2.blocks.3: its depth", "stages.3.blocks.0: this conv"),
    ),
    "efficientformer_v2": (
        (4, 8),
        (
            "stages.2.blocks.1.token_mixer: it is computed on a coarser grid",
            "stages.2.blocks.1.mlp and 1 more: its depthwise",
            "stages.3.downsample.attn and 1 more: a convolution of its values",
        ),
    ),
    "shvit": (
        (4, 5),
        (
            "stages.1.blocks.0.conv and 3 more: its depth",
            "stages.2.downsample.2: its conv",
        ),
    ),
    "efficientvit_msra": (
        (6, 9),
        (
            "stages.0.blocks.0.dw0 and 5 more: its depth",
            "stages.0.blocks.0.mixer and 1 more: each head reads",
            "stages.1.downsample.patchmerge: its conv",
        ),
    ),
    "mobilevit": (
        (8, 12),
        ("stages.1.1.conv_proj and 1 more: its last conv", "stages.2.0 and 1 more: its convolutions"),
    ),
    "botnet": ((8, 8), ("stages.2.0.self_attn: an activation",)),
    "halonet": ((8, 12), ("stages.1.2: its conv",)),
    "halonet_averaged": ((6, 12), ("stages.1.0.self_attn: an activation", "stages.2.0: its conv")),
    "resnet_clip": ((4, 6), ()),
    "nextvit": (
        (9, 13),
        (
            "stages.1.blocks.0.mhca and 2 more: its convolutions",
            "stages.2.blocks.0.patch_embed and 1 more: it averages",
            "stages.2.blocks.0.mhca and 3 more: its depthwise",
        ),
    ),
}


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
    assert len(report.approximate) == len(approximate), report.approximate
    for said, expected in zip(report.approximate, approximate, strict=True):
        assert said.startswith(expected)


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
    if method is TransformerAttribution and name == "iformer":  # its values are a sigmoid
        with pytest.raises(UnsupportedModelError, match="As anything but a factor, sigmoid has no propagation rule"):
            method(model).attribute(x, target=1)
        return
    if method is ATTCAT and name == "resnet_clip":
        with pytest.raises(UnsupportedModelError, match="in its pooling head only"):
            method(model).attribute(x, target=1)
        return
    whole = method(model).attribute(x, target=[1, 2], **given)
    each = [method(model).attribute(one[None], target=c, **given) for one, c in zip(x, (1, 2), strict=True)]
    assert whole.shape == x.shape
    _close(whole, torch.cat(each), 1e-8 if method is TransformerAttribution else 1e-9)  # z+ divides by sums


class Corner(nn.Module):
    """A model that sees only the pixels of the lower left corner."""

    def __init__(self, model: nn.Module, rows: int, columns: int) -> None:
        super().__init__()
        self.inner, self.rows, self.columns = model, rows, columns

    def forward(self, x: T) -> T:
        mask = torch.zeros_like(x[:1, :1])
        mask[..., -self.rows :, : self.columns] = 1
        return self.inner(x * mask)


@every_model
def test_unseen_tokens_get_no_relevance(name: str) -> None:
    """Without biases and positions, tokens that see nothing of the image are vectors of zeros."""
    model, x = build(name), images(name, 1)
    x = x if name in FIXED else torch.cat([x] * 4, 2)  # tall, because deep convolutions see far
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if path.endswith("bias") or "pos_embed" in path:
                parameter.zero_()
        for path, buffer in model.named_buffers():
            if path.endswith("running_mean"):
                buffer.zero_()
    layout, seen = layout_for(model), []
    tap = layout.stages[0].stream
    cut = Corner(model, x.shape[2] // 8, x.shape[3] // 4)

    def keep(module: nn.Module, arguments: Any, out: Any = None) -> None:
        seen.append(arguments[0] if tap.at == "input" else out)

    with_hook = tap.module.register_forward_pre_hook if tap.at == "input" else tap.module.register_forward_hook
    handle = with_hook(keep)
    cut(x)
    handle.remove()
    inside = tap.tokens(seen[0])[0].any(-1)
    grid = VTranM(cut).attribute(x, target=TARGET, attribute_to="grid")[0, 0]
    rows = grid.shape[0]
    assert 0 < inside.sum() < inside.numel()
    assert not inside.reshape(grid.shape)[: rows // 3].any()
    assert torch.equal(grid.flatten() > 0, inside)


# What is said

NAMES = (
    "fastvit",
    "efficientformer",
    "efficientformer_v2",
    "visformer",
    "mobilenetv5",
    "lowformer",
    "cpubone",
    "iformer",
    "shvit",
    "efficientvit_msra",
    "byoanet",
    "mobilevit",
    "nextvit",
    "edgenext",
    "efficientvit_mit",
    "repvit",
    "swiftformer",
)
NAMED = [
    *(name for module in NAMES for name in timm.list_models(module=module)),
    *timm.list_models("mobilenetv4*"),
    *timm.list_models("*_clip*", module="byobnet"),
]
REFUSED = dict.fromkeys(("fastvit_t8", "fastvit_t12", "fastvit_s12"), "has no attention")
REFUSED |= dict.fromkeys(timm.list_models("mobilenetv4_conv*"), "has no attention")
REFUSED |= dict.fromkeys(("lowformer_e1", "lowformer_e2"), "has no attention")
REFUSED |= dict.fromkeys(timm.list_models("lambda_resnet*"), "has lambda layers")
REFUSED |= dict.fromkeys(timm.list_models("mobilevitv2*"), "MobileViT v2 multiplies")
REFUSED |= dict.fromkeys(timm.list_models("resnet*_clip_gap"), "has no attention over tokens")
REFUSED |= {"haloregnetz_b": "adds to nothing"}
REFUSED |= dict.fromkeys(timm.list_models(module="edgenext"), "its attention is over channels")
REFUSED |= dict.fromkeys(timm.list_models(module="efficientvit_mit"), "its attention is linear")
REFUSED |= dict.fromkeys(timm.list_models(module="repvit"), "has no attention")
REFUSED |= dict.fromkeys(timm.list_models(module="swiftformer"), "additive attention")
REFUSED |= dict.fromkeys(timm.list_models("mobilenetv5*"), "joins the tokens of two stages")


@pytest.mark.parametrize("name", NAMED)
def test_timm_models_by_name(name: str) -> None:
    """Every name has a layout, or is refused with the reason; described without weights."""
    with torch.device("meta"):
        model = timm.create_model(name)
    if name in REFUSED:
        with pytest.raises(UnsupportedModelError, match=REFUSED[name]):
            layout_for(model)
    else:
        assert layout_for(model).stages


@pytest.mark.parametrize(
    ("name", "options", "way_out"),
    [
        ("fastvit_sa12", {"global_pool": "max"}, "Create it with global_pool='avg'"),
        ("fastvit_sa12", {"fork_feat": True}, "Create it with fork_feat=False"),
        ("efficientformer_l1", {"num_vit": 0}, "Create it with num_vit=1"),
        ("efficientformer_l1", {"global_pool": "", "num_classes": 0}, "Create it with global_pool='avg'"),
        ("shvit_s1", {"types": ("i", "i", "i")}, "Create it with types="),
        ("visformer_tiny", {"attn_stage": "000"}, "Create it with attn_stage='011'"),
        ("mobilenetv4_hybrid_medium", {"global_pool": "max"}, "Create it with global_pool='avg'"),
    ],
)
def test_other_options_are_refused(name: str, options: dict[str, Any], way_out: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, **options)
    with pytest.raises(UnsupportedModelError, match=way_out):
        layout_for(model)


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
    _close(VTranM(model.double()).attribute(x, target=1), expected)


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
    _close(TokenGradCAM(model).attribute(x, target=1), expected)


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
