"""Hierarchical models: every method against explicit matrices over the network, and the location of its map."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.models.swin_transformer import PatchMerging, SwinTransformer, SwinTransformerBlock
from timm.models.swin_transformer_v2 import SwinTransformerV2, SwinTransformerV2Block
from timm.models.swin_transformer_v2_cr import SwinTransformerV2Cr
from torch import nn

from captum_astro import (
    ATTCAT,
    LRP,
    AttentionGradCAM,
    AttentionRollout,
    AttnLRP,
    ConservativeLRP,
    RawAttention,
    TokenGradCAM,
    TransformerAttribution,
    TransformerMM,
    UnsupportedModelError,
    VTranM,
    check,
    explainers,
)
from captum_astro.attr.attention_rollout import RolloutUpdate
from captum_astro.capture.call import Call
from captum_astro.capture.capture import capture
from captum_astro.capture.carry import carry
from captum_astro.capture.target import Target
from captum_astro.capture.wanted import Wanted
from captum_astro.functional.token_map import merge_map, window_map
from captum_astro.layouts import layout_for
from tests import twin_windows as twin
from tests.comparing import ROWS, Corner, assert_close, tokens
from tests.families import HIERARCHICAL, SIZES, build, images
from tests.libraries import NARROW

TARGET = 3
PROPAGATED = (LRP, AttnLRP, ConservativeLRP)
every_model = pytest.mark.parametrize("name", HIERARCHICAL)
every_row = pytest.mark.parametrize("method", ROWS, ids=lambda m: m.__name__)
T = torch.Tensor
_tokens = partial(tokens, target=TARGET)
_close = partial(assert_close, tolerance=1e-12)


# The reference and the models


@every_model
def test_the_reference_rebuilds_every_layer(name: str) -> None:
    """Checks that the reference reconstructs the layers, and that the models have the features they are named for."""
    model, taken = twin.of_model(name, "logit")
    assert taken.error < 1e-13
    assert taken.padded == (name not in ("swin", "swin_v2", "swin_v2_cr"))
    shifts = [block.shift_size for block in twin.blocks_of(model)]
    assert any(any(shift) for shift in shifts)
    assert [any(shift) for shift in shifts] != [True] * len(shifts)


@every_model
def test_the_identity_holds(name: str) -> None:
    model, x = build(name), images(name)
    report = check(model, x)
    assert report.ok
    assert report.tolerance == 1e-10
    assert max(stage.error for stage in report.stages) < 1e-12
    rows, columns = SIZES.get(name, (32, 32))
    assert report.grid == (rows // 4, columns // 4)
    merged = [stage for stage in report.stages if stage.captured == "4 tokens merged into one"]
    assert len(merged) == len(twin.stages_of(model)) - 1
    assert all(stage.name.endswith("downsample") for stage in merged)
    assert len(report.stages) == len(merged) + 2 * len(twin.blocks_of(model))


# The methods

OPTIONS: dict[str, dict[str, Any]] = {
    "full": {},
    "direction": {"components": ("direction",)},
    "aggregation": {"components": ()},
    "baseline": {"aggregation": False},
    "gain": {"components": ("length",), "output": "logit", "gain": 3.0},
    "gradient": {"gain": 1e6},  # the map stays close to the identity: here the rest of it shows
    "some": {"layers": (-1, 1), "output": "logit"},
    "last_of_some": {"layers": (0, 1), "aggregation": False},
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("include_norm", [True, False])
@every_model
@pytest.mark.one_in(4)
def test_vtranm(name: str, option: str, include_norm: bool) -> None:
    given = {"include_norm": include_norm, **OPTIONS[option]}
    model, taken = twin.of_model(name, given.get("output", "probability"))
    blocks = len(twin.blocks_of(model))
    wanted = {key: value for key, value in given.items() if key != "output"}
    if "layers" in wanted:
        wanted["layers"] = tuple(layer % blocks for layer in wanted["layers"])
    expected, x = twin.vtranm(taken, **wanted), images(name, 1)
    _close(_tokens(VTranM, model, x, **given), twin.mean_row(expected))
    if given.pop("aggregation", True):
        _close(VTranM(model).contribution_map(x, target=TARGET, **given)[0], expected)


@every_model
def test_rollout(name: str) -> None:
    model, taken = twin.of_model(name, "logit")
    rollout = partial(twin.chain, taken, lambda a, g: a, normalise=True)
    _close(_tokens(AttentionRollout, model, images(name, 1)), rollout())
    later = range(2, len(twin.blocks_of(model)))
    _close(_tokens(AttentionRollout, model, images(name, 1), start_layer=2), rollout(layers=later))


@every_model
def test_rollout_conserves(name: str) -> None:
    """Also with padding: attention paid to it is dropped before the rows are normalised to 1."""
    row = AttentionRollout(build(name)).attribute(images(name), target=1, attribute_to="tokens")
    torch.testing.assert_close(row.sum(1), torch.ones(3, dtype=torch.float64), rtol=1e-12, atol=0)


@every_model
def test_transformer_mm(name: str) -> None:
    model, taken = twin.of_model(name, "logit")
    expected = twin.chain(taken, lambda a, g: (a * g).clamp(min=0))
    _close(_tokens(TransformerMM, model, images(name, 1)), expected)
    # most of it is the identity: what the layers add agrees too
    identity = twin.chain(taken, lambda a, g: 0 * a)
    _close(_tokens(TransformerMM, model, images(name, 1)) - identity, expected - identity, tolerance=1e-8)


@every_model
@pytest.mark.parametrize("layers", [None, (0,), (1,)])
def test_raw_attention(name: str, layers: Any) -> None:
    model, taken = twin.of_model(name, "logit")
    expected = twin.mean_row(twin.last(taken, lambda step: twin.mean_map(step, lambda a, g: a), layers))
    _close(_tokens(RawAttention, model, images(name, 1), layers=layers), expected)


@every_model
def test_attcat(name: str) -> None:
    model, taken = twin.of_model(name, "logit")
    _close(_tokens(ATTCAT, model, images(name, 1)), twin.attcat(taken))


@every_model
def test_attention_grad_cam(name: str) -> None:
    model, taken = twin.of_model(name, "logit")
    x, whole = images(name, 1), twin.attention_grad_cam(taken, relu=False)
    _close(_tokens(AttentionGradCAM, model, x, relu_attributions=False), whole)
    # what is cut off is the negative part of the last grid, before it is carried on
    found, expected = _tokens(AttentionGradCAM, model, x), twin.attention_grad_cam(taken)
    assert (found - expected).abs().max() <= 1e-12 * whole.abs().max()


@pytest.mark.parametrize("name", ["swin_padded", "swin_rectangular", "swin_v2_dynamic", "swin_v2_cr"])
def test_relevance_by_z_plus(name: str) -> None:
    """LRP at the tokens, and Transformer Attribution from the maps' relevance."""
    model, taken = twin.of_model(name, "logit")
    traced, x = build(name), images(name, 1)
    trace, tokens = twin.traced(traced, x)
    rules = twin.WindowedTaylor()
    arrived = trace.back(TARGET, rules)[tokens].sum(-1).flatten()
    _close(_tokens(LRP, model, x).flatten(), arrived, tolerance=1e-9)
    expected, identity = twin.transformer_attribution(model, taken, rules.maps), twin.chain(taken, lambda a, g: 0 * a)
    # most of it is the identity: what the layers add agrees too
    _close(_tokens(TransformerAttribution, model, x) - identity, expected - identity, tolerance=1e-7)


@every_model
@pytest.mark.parametrize("method", [*PROPAGATED, TokenGradCAM], ids=lambda m: m.__name__)
def test_methods_that_propagate(method: Any, name: str) -> None:
    model, x = build(name), images(name)
    explain = partial(method(model).attribute, x, target=TARGET)
    whole, pixels, grid = explain(), explain(attribute_to="pixels"), explain(attribute_to="grid")
    rows, columns = SIZES.get(name, (32, 32))
    assert whole.shape == x.shape
    assert whole.isfinite().all()
    assert whole.flatten(1).any(1).all()
    assert pixels.shape == (3, 1, rows, columns)
    torch.testing.assert_close(whole.sum(1, keepdim=True), pixels)
    if method is TokenGradCAM:  # of the last grid
        stream = capture(_call(model, x), Wanted(gradient=False)).stages[-1]
        assert grid.shape == (3, 1, *stream.grid)
        return
    assert grid.shape == (3, 1, rows // 4, columns // 4)
    tokens = explain(attribute_to="tokens")
    assert tokens.shape == (3, rows // 4 * (columns // 4))
    assert torch.equal(tokens, grid.flatten(1))


@every_model
@pytest.mark.parametrize("where", ["default", "block"])
def test_token_grad_cam(where: str, name: str) -> None:
    """At the input of the last block's attention, or a named block: channels are last in all of these models."""
    model, x, kept = build(name), images(name, 1), []
    block = twin.blocks_of(model)[1 if where == "block" else -1]
    layer = next(path for path, module in model.named_modules() if module is block) if where == "block" else None
    if where == "block":
        handle = block.register_forward_hook(lambda m, a, o: kept.append(o))
    elif isinstance(block, SwinTransformerBlock):
        handle = block.norm1.register_forward_hook(lambda m, a, o: kept.append(o))
    else:
        handle = block.register_forward_pre_hook(lambda m, a: kept.append(a[0]))
    (gradient,) = torch.autograd.grad(model(x)[0, TARGET], kept)
    handle.remove()
    rows, columns, channels = kept[0].shape[1:]
    expected = torch.zeros(1, 1, rows, columns, dtype=torch.float64)
    for c in range(channels):
        expected[0, 0] += gradient[0, ..., c].mean() * kept[0][0, ..., c].detach()
    got = TokenGradCAM(model, layer).attribute(x, target=TARGET, attribute_to="grid", relu_attributions=False)
    _close(got, expected)


def test_rows_in_chunks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = build("swin_padded"), images("swin_padded")
    whole = [method(model).attribute(x, target=1) for method in ROWS]
    full = VTranM(model).contribution_map(x, target=1)
    monkeypatch.setattr("captum_astro.functional.attention.CHUNK_ELEMENTS", 3000)
    for method, expected in zip(ROWS, whole, strict=True):
        torch.testing.assert_close(method(model).attribute(x, target=1), expected, rtol=1e-9, atol=1e-15)
    torch.testing.assert_close(VTranM(model).contribution_map(x, target=1), full, rtol=1e-12, atol=1e-16)


@every_row
@pytest.mark.parametrize(
    ("name", "dtype"),
    [("swin_padded", torch.float16), ("swin_padded", torch.bfloat16), ("swin_v2_cr_norms", torch.bfloat16)],
)
def test_half_precision(method: Any, name: str, dtype: torch.dtype) -> None:
    given = {"relu_attributions": False} if method is AttentionGradCAM else {}  # or the map may be zero everywhere
    exact = method(build(name)).attribute(images(name), target=1, **given).flatten(1)
    model, x = build(name, dtype), images(name, dtype=dtype)
    found = method(model).attribute(x, target=1, **given)
    assert found.dtype == dtype
    assert found.isfinite().all()
    # ATTCAT's sums of either sign, and z+'s quotients of them, magnify rounding
    close = 0.9 if method in (ATTCAT, TransformerAttribution) else 0.98
    assert torch.cosine_similarity(found.flatten(1).double(), exact).min() > close


@pytest.mark.filterwarnings("ignore:AttentionGradCAM gives a map that is zero")
@every_row
def test_inputs_and_models_are_unchanged(method: Any) -> None:
    model, x = build("swin_padded"), images("swin_padded")
    before, weights = x.clone(), [p.clone() for p in model.parameters()]
    keys = [sorted(vars(module)) for module in model.modules()]
    method(model).attribute(x, target=1)
    assert torch.equal(x, before)
    assert all(torch.equal(p, w) and p.requires_grad for p, w in zip(model.parameters(), weights, strict=True))
    assert keys == [sorted(vars(module)) for module in model.modules()]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_maps_made_in_inference_mode_serve_later_passes() -> None:
    model, x = build("swin"), images("swin")
    expected = VTranM(model).attribute(x, target=1)
    for kept in (window_map, merge_map):
        kept.cache_clear()
    with torch.inference_mode():
        VTranM(model).attribute(x.clone(), target=1)
        layout_for(model).grids(32, 32)
    for explainer in (one for one in explainers() if one.name not in NARROW):
        explainer.method(model).attribute(x, target=1)
    assert torch.equal(VTranM(model).attribute(x, target=1), expected)


def test_model_with_another_image_size() -> None:
    """Windows are computed at each call, as timm changes them with the size."""
    model = build("swin")
    method = VTranM(model)
    method.attribute(images("swin"), target=1)
    model.set_input_size(img_size=(48, 40), window_size=(3, 4))
    x = images("swin_s3")[..., :40]
    assert check(model, x).ok
    found = method.attribute(x, target=TARGET, attribute_to="tokens")
    assert found.shape == (3, 120)
    expected = twin.mean_row(twin.vtranm(twin.take(model, x[1:2], TARGET, "probability")))
    _close(found[1], expected)


@pytest.mark.parametrize(
    "name",
    ["swin_tiny_patch4_window7_224", "swin_s3_tiny_224", "swinv2_cr_tiny_ns_224", "swinv2_tiny_window8_256"],
)
def test_timm_models_by_name(name: str) -> None:
    """At the published size and number of stages."""
    torch.manual_seed(0)
    model = timm.create_model(name, depths=(1, 2, 1, 1)).eval().double()
    report = check(model, torch.randn(1, *timm.get_pretrained_cfg(name).input_size, dtype=torch.float64))
    assert report.ok, str(report)


@pytest.mark.parametrize("pool", ["max", "avgmax", ""])
def test_other_pooling_is_rejected(pool: str) -> None:
    model = HIERARCHICAL["swin"](global_pool=pool)
    with pytest.raises(UnsupportedModelError, match="global_pool='avg'"):
        VTranM(model)


# Where the maps lie

LOCAL = {"img_size": 64, "patch_size": 4, "embed_dim": 12, "depths": (2, 1), "num_heads": (2, 3), "num_classes": 5}
MANY = {
    # 16 x 16 and 8 x 8 tokens in windows of 2 and 4, and windows that do not divide them
    "v1": partial(SwinTransformer, **LOCAL, window_size=((2, 2), (4, 4))),
    "v1_padded": partial(SwinTransformer, **LOCAL, window_size=((3, 3), (3, 3))),
    "v2": partial(SwinTransformerV2, **LOCAL, window_size=((2, 2), (4, 4))),
    "v2_cr": partial(SwinTransformerV2Cr, **LOCAL, window_size=((2, 2), (3, 3)), init_values=None),
}


def _drawn(made: Any) -> nn.Module:
    torch.manual_seed(0)
    model = made().eval().double()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def _call(model: nn.Module, x: T) -> Call:
    return Call(model, x, Target(1), layout=layout_for(model))


@pytest.mark.parametrize("name", MANY)
def test_maps_highlight_where_the_model_looks(name: str) -> None:
    """Each final token's row holds exactly those tokens that the model's own gradient reaches."""
    model, x = _drawn(MANY[name]), torch.randn(1, 3, 64, 64, dtype=torch.float64)
    kept: list[T] = []
    blocks = twin.blocks_of(model)
    hooks = [
        blocks[0].register_forward_pre_hook(lambda m, a: kept.append(a[0])),
        blocks[-1].register_forward_hook(lambda m, a, o: kept.append(o)),
    ]
    model(x.clone().requires_grad_(True))
    for hook in hooks:
        hook.remove()
    final = kept[1].flatten(1, 2)[0]
    reached = torch.zeros(64, 256, dtype=torch.bool)
    for i in range(64):
        (gradient,) = torch.autograd.grad(final[i] @ torch.randn(24, dtype=torch.float64), kept[0], retain_graph=True)
        length = gradient[0].flatten(0, 1).norm(dim=-1)
        reached[i] = length > 1e-20 * length.max()  # timm forbids attention by -100, which leaves 1e-44 of it
    assert 0.05 < reached.double().mean() < 0.9
    passed = capture(_call(model, x), Wanted(gradient=False))
    for i in range(0, 64, 7):
        found = carry(passed, RolloutUpdate(), torch.eye(64, dtype=torch.float64)[None, i])[0]
        assert torch.equal(found > 1e-20 * found.max(), reached[i])
    # a gradient that is negative leaves a token out, and nothing brings another in
    full = VTranM(model).contribution_map(x, target=1)[0]
    assert ((full > 1e-20 * full.max()) & ~reached).sum() == 0
    assert ((full > 1e-20 * full.max()) & reached).sum() > 0.5 * reached.sum()


@every_model
@pytest.mark.parametrize("method", [VTranM, LRP, AttnLRP, ConservativeLRP], ids=lambda m: m.__name__)
def test_unseen_tokens_get_no_relevance(method: Any, name: str) -> None:
    """Without biases in the patch embedding, patches that are not seen have a vector of zeros."""
    model, x = build(name), images(name, 2)
    first = twin.blocks_of(model)[0]
    with torch.no_grad():
        model.patch_embed.proj.bias.zero_()
        model.patch_embed.norm.bias.zero_()
        if isinstance(first, SwinTransformerBlock):  # LRP passes what the first norm makes of them
            first.norm1.bias.zero_()
    rows, columns = (side // 4 for side in x.shape[-2:])
    seen = torch.zeros(rows, columns, dtype=torch.bool)
    seen[-3:, :2] = True
    grid = method(Corner(model, 12, 8)).attribute(x, target=TARGET, attribute_to="grid")
    assert grid.shape == (2, 1, rows, columns)
    assert not grid[:, :, ~seen].any()
    assert grid[:, :, seen].abs().min() > 0
    if method is VTranM:
        return
    whole = method(Corner(model, 12, 8)).attribute(x, target=TARGET)
    pixels = seen.repeat_interleave(4, 0).repeat_interleave(4, 1)
    assert not whole[..., ~pixels].any()
    assert whole[..., pixels].any()


@pytest.mark.parametrize("method", [*ROWS, *PROPAGATED], ids=lambda m: m.__name__)
@pytest.mark.parametrize("name", ["v1", "v2", "v2_cr"])
def test_a_shifted_image_gives_a_shifted_map(name: str, method: Any) -> None:
    """No window is shifted, and the image moves by whole windows of both stages."""
    made = MANY[name]
    model = _drawn(partial(made, depths=(1, 1), window_size=4))
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    moved = torch.roll(x, (32, -32), (2, 3))  # 8 tokens of the first stage, 4 of the second
    explain = partial(method(model).attribute, target=1, attribute_to="grid")
    given = {"relu_attributions": False} if method is AttentionGradCAM else {}
    grid = explain(x, **given)
    found, varying = explain(moved, **given), (grid - grid.mean()).abs().max()
    assert (found - torch.roll(grid, (8, -8), (2, 3))).abs().max() <= 1e-7 * varying
    for other in ((0, 0), (-8, 0), (8, 0)):
        assert (found - torch.roll(grid, other, (2, 3))).abs().max() > 0.1 * varying


def test_pixels_outside_all_patches_get_zero() -> None:
    """timm's v2-CR accepts images that are not whole patches; its convolution ignores the remainder."""
    model = _drawn(partial(MANY["v2_cr"], dynamic_img_size=True))
    x = torch.randn(1, 3, 30, 35, dtype=torch.float64)
    method = VTranM(model)
    grid, pixels = (method.attribute(x, target=1, attribute_to=form) for form in ("grid", "pixels"))
    assert grid.shape == (1, 1, 7, 8)
    assert pixels.shape == (1, 1, 30, 35)
    torch.testing.assert_close(pixels[..., :28, :32], F.interpolate(grid, size=(28, 32), mode="bilinear"))
    assert not pixels[..., 28:, :].any()
    assert not pixels[..., 32:].any()


@pytest.mark.parametrize("size", [(4, 4), (8, 12), (4, 20), (64, 12)])
@pytest.mark.parametrize("name", ["swin_dynamic", "swin_v2_dynamic"])
def test_grids_smaller_than_a_window(name: str, size: tuple[int, int]) -> None:
    """Down to one token, which is rolled upon itself, padded to a window and merged with nothing."""
    model, x = build(name), torch.randn(1, 3, *size, dtype=torch.float64)
    assert check(model, x).ok
    taken = twin.take(model, x, TARGET, "probability")
    _close(_tokens(VTranM, model, x, gain=1e3), twin.mean_row(twin.vtranm(taken, gain=1e3)))


@pytest.mark.parametrize("name", ["swin", "swin_padded", "swin_s3"])
def test_explicit_attention_gives_the_same_map(name: str) -> None:
    """timm does not fuse v1's attention by default; the package does for its passes, unless disabled."""
    model, open_, x = build(name), build(name), images(name)
    for block in twin.blocks_of(open_):
        block.attn.fused_attn = 0
    assert "explicit attention map" in str(check(open_, x))
    assert "explicit attention map" not in str(check(model, x))
    for method in ROWS[:-1]:
        given = {"relu_attributions": False} if method is AttentionGradCAM else {}
        expected = method(model).attribute(x, target=1, **given)
        _close(method(open_).attribute(x, target=1, **given), expected)


def test_grid_is_arranged_like_the_image() -> None:
    """6 rows, 12 columns: upsampled as the grid, not as its transpose."""
    model, x = build("swin_rectangular"), images("swin_rectangular")
    method = VTranM(model)
    tokens, grid, pixels = (method.attribute(x, target=1, attribute_to=form) for form in ("tokens", "grid", "pixels"))
    assert grid.shape == (3, 1, 6, 12)
    assert torch.equal(grid.flatten(1), tokens)
    torch.testing.assert_close(pixels, F.interpolate(grid, size=(24, 48), mode="bilinear"))
    for row, column in ((0, 0), (2, 7), (5, 11)):
        assert torch.equal(grid[:, 0, row, column], tokens[:, row * 12 + column])


# What the layout does not describe


class ShiftedFurther(SwinTransformerBlock):
    """Windows shifted one token further than the block says."""

    def _attn(self, x: T) -> T:
        shift = self.shift_size
        self.shift_size = (shift[0] + 1, shift[1] + 1)
        try:
            return super()._attn(x)
        finally:
            self.shift_size = shift


class MixedAfter(SwinTransformerBlock):
    """Each token receives a part of its neighbour."""

    def forward(self, x: T) -> T:
        x = super().forward(x)
        return x + 0.1 * x.roll(1, 1)


class MixedAfterV2(SwinTransformerV2Block):
    """The same."""

    def forward(self, x: T) -> T:
        x = super().forward(x)
        return x + 0.1 * x.roll(1, 1)


class OutputsMoved(SwinTransformerBlock):
    """The attention output of each token goes to the next one."""

    def _attn(self, x: T) -> T:
        return super()._attn(x).roll(1, 1)


class KeysMoved(SwinTransformerBlock):
    """Attention reads each token's neighbour instead, so that its values are those of other tokens."""

    def _attn(self, x: T) -> T:
        return super()._attn(x.roll(1, 1))


class KeysMovedV2(SwinTransformerV2Block):
    """The same."""

    def _attn(self, x: T) -> T:
        return super()._attn(x.roll(1, 1))


class ByRows(PatchMerging):
    """The four parts along each row, where timm has them down each column."""

    def forward(self, x: T) -> T:
        batch, rows, columns, width = x.shape
        x = F.pad(x, (0, 0, 0, columns % 2, 0, rows % 2))
        x = x.reshape(batch, -(-rows // 2), 2, -(-columns // 2), 2, width).permute(0, 1, 3, 2, 4, 5).flatten(3)
        return self.reduction(self.norm(x))


@pytest.mark.parametrize("method", [VTranM, AttentionRollout], ids=lambda m: m.__name__)
@pytest.mark.parametrize(
    ("name", "path", "wrong", "told"),
    [
        ("swin", "layers.0.blocks.1", ShiftedFurther, "layers.0.blocks.1.attn"),
        ("swin_padded", "layers.1.blocks.1", ShiftedFurther, "layers.1.blocks.1.attn"),
        ("swin_padded", "layers.0.blocks.0", OutputsMoved, "layers.0.blocks.0.attn"),
        ("swin", "layers.0.blocks.0", MixedAfter, "layers.0.blocks.0.mlp"),
        ("swin", "layers.1.blocks.1", MixedAfter, "layers.1.blocks.1.mlp"),
        ("swin_v2", "layers.0.blocks.1", MixedAfterV2, "layers.0.blocks.1.mlp"),
        ("swin", "layers.1.downsample", ByRows, "layers.1.downsample"),
        ("swin_odd", "layers.2.downsample", ByRows, "layers.2.downsample"),
        ("swin", "layers.0.blocks.1", KeysMoved, "layers.0.blocks.1.attn"),
        ("swin_v2", "layers.0.blocks.0", KeysMovedV2, "layers.0.blocks.0.attn"),
    ],
)
def test_non_linear_layer_is_rejected(method: Any, name: str, path: str, wrong: Any, told: str) -> None:
    model, x = build(name), images(name)
    model.get_submodule(path).__class__ = wrong
    assert not check(model, x).ok
    with pytest.raises(UnsupportedModelError, match=told.replace(".", r"\.")):
        method(model).attribute(x, target=1)
