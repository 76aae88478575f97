"""Families with convolutions, poolings or reduced keys: against explicit matrices, and where their maps lie."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from captum_astro import (
    ATTCAT,
    AttentionGradCAM,
    AttentionRollout,
    TransformerAttribution,
    UnsupportedModelError,
    VTranM,
    check,
)
from captum_astro.layouts import layout_for
from captum_astro.layouts.steps import Tap
from tests import (
    hybrid_layouts,
    staged_families,
    twin_byobnet,  # noqa: F401  (the twins describe the families)
    twin_families,  # noqa: F401
    twin_hybrid,  # noqa: F401
    twin_stages,  # noqa: F401
)
from tests import twin_layers as twin
from tests.comparing import ROWS, Corner, assert_close, tokens
from tests.families import MIXED, build, images
from tests.hybrid_families import FIXED, HYBRID

TARGET = 3
every_model = pytest.mark.parametrize("name", [*MIXED, *HYBRID])
pytestmark = pytest.mark.filterwarnings("ignore:.* mixes tokens where")
T = torch.Tensor
_tokens = partial(tokens, target=TARGET)

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
}
EXPECTED |= staged_families.EXPECTED | hybrid_layouts.EXPECTED
# not defined for these: why
REFUSED = {
    ("iformer", TransformerAttribution): "As anything but a factor, sigmoid has no propagation rule",
    ("resnet_clip", ATTCAT): "in its pooling head only",
}


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
        assert said in " ".join(str(report).split())  # in lines of 80 characters


@every_model
@pytest.mark.one_in(2)
def test_vtranm(name: str) -> None:
    model, taken = twin.of_model(name, TARGET)
    x = images(name, 1)
    assert_close(_tokens(VTranM, model, x), twin.vtranm(taken))
    # at the published gain the map stays close to the identity: here the rest of it shows
    assert_close(_tokens(VTranM, model, x, gain=1e4), twin.vtranm(taken, 1e4))


@every_model
def test_rollout(name: str) -> None:
    model, taken = twin.of_model(name, TARGET)
    assert_close(_tokens(AttentionRollout, model, images(name, 1)), twin.rollout(taken))


@every_model
@pytest.mark.parametrize("method", ROWS, ids=lambda m: m.__name__)
@pytest.mark.one_in(5)
def test_a_batch_equals_single_calls(method: Any, name: str) -> None:
    model, x = build(name), images(name, 2)
    given = {"relu_attributions": False} if method is AttentionGradCAM else {}
    if reason := REFUSED.get((name, method)):
        with pytest.raises(UnsupportedModelError, match=reason):
            method(model).attribute(x, target=1)
        return
    whole = method(model).attribute(x, target=[1, 2], **given)
    each = [method(model).attribute(one[None], target=c, **given) for one, c in zip(x, (1, 2), strict=True)]
    assert whole.shape == x.shape
    divides = method is TransformerAttribution and name in HYBRID  # z+ divides by sums, which may be small
    assert_close(whole, torch.cat(each), 1e-8 if divides else 1e-9)


# "hiera_windows" interpolates in float32 only
@pytest.mark.parametrize("name", [name for name in (*MIXED, *HYBRID) if name != "hiera_windows"])
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
    assert_close(got, expected)


# What makes a token that sees nothing of the image more than zeros: biases, positions and running means. Where
# convolutions are between the first stage and the pixels, all of them; else those before the first stage.
EVERYWHERE = re.compile(r".*(bias$|pos_embed|running_mean$)")
BEFORE = re.compile(
    r"((patch|pixel)_embeds?|stem)\b.*bias|(levels\.0\.)?pos_embed|(patch|pixel)_pos|(norm\d_)?proj\.bias"
    r"|(stem|patch_embed).*running_mean$"
)


@every_model
def test_unseen_tokens_get_no_relevance(name: str) -> None:
    """Without biases and positions, tokens that see nothing of the image are vectors of zeros."""
    model, x = build(name), images(name, 1)
    deep = name in HYBRID  # whose convolutions see far
    x = torch.cat([x] * 4, 2) if deep and name not in FIXED else x
    with torch.no_grad():
        for path, weight in (*model.named_parameters(), *model.named_buffers()):
            if (EVERYWHERE if deep else BEFORE).match(path):
                weight.zero_()
    cut = Corner(model, x.shape[2] // (8 if deep else 3), x.shape[3] // (4 if deep else 3))
    layout = layout_for(model)
    inside = _first_tokens(layout.stages[0].stream, cut, x)[layout.num_prefix_tokens :].any(-1)
    grid = VTranM(cut).attribute(x, target=TARGET, attribute_to="grid")[0, 0]
    rows, columns = grid.shape
    unseen = ~inside.reshape(rows, columns)
    assert 0 < inside.sum() < inside.numel() / (1 if deep else 3)
    assert unseen[: rows // (3 if deep else 2)].all()
    assert deep or unseen[:, columns // 2 + 1 :].all()
    assert torch.equal(grid.flatten() > 0, inside)


def _first_tokens(tap: Tap, model: nn.Module, x: T) -> T:
    """The tokens at a tap, ``(n, d)``, of a model that contains its module."""
    seen: list[T] = []
    if tap.at == "input":
        handle = tap.module.register_forward_pre_hook(lambda m, a: seen.append(a[tap.number]))
    else:
        handle = tap.module.register_forward_hook(lambda m, a, out: seen.append(out))
    model(x)
    handle.remove()
    return tap.tokens(seen[0])[0]


@pytest.mark.filterwarnings("default:.* mixes tokens where")
def test_approximation_is_said_once() -> None:
    model, x = build("pvt_v2"), images("pvt_v2", 3)
    with pytest.warns(UserWarning, match="PyramidVisionTransformerV2 mixes tokens where VTranM is only") as said:
        VTranM(model).attribute(x, target=1, internal_batch_size=1)
    assert len(said) == 1
