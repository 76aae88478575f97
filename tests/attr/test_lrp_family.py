"""The LRP family: LRP against the rules applied one by one, and what the methods have in common, on every family."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import GroupNormAct, LayerNorm2d, LayerNormAct2d, RmsNorm
from timm.layers.attention import Attention
from torch import nn

from captum_astro import LRP, AttnLRP, ConservativeLRP, TransformerAttribution, UnsupportedModelError
from captum_astro.capture.gradient_rules import ConstantWeights, SharedGradients
from captum_astro.capture.original_rules import OriginalRelevance
from captum_astro.capture.relevance_rules import Relevance
from tests import twin_rules
from tests.attr import reference
from tests.families import FAMILIES, SMALL, _vit, build, images


@pytest.mark.parametrize(("rules", "twin"), [("normalised", twin_rules.DeepTaylor), ("original", twin_rules.Original)])
@pytest.mark.parametrize("name", reference.TRACED)
@pytest.mark.one_in(3)
def test_lrp_agrees_with_the_rules_one_by_one(name: str, rules: str, twin: Any) -> None:
    trace = reference.traced(name)
    arrived = trace.back(reference.TARGET, twin())
    reference.agree(LRP, name, arrived[trace.tokens].sum(-1)[0], attribute_to="tokens", rules=rules)
    reference.agree(LRP, name, arrived[trace.image][0], rules=rules)


def test_unknown_rules_are_refused() -> None:
    with pytest.raises(ValueError, match="rules must be normalised or original, not 'z_plus'"):
        LRP(build("cls")).attribute(images("cls"), target=1, rules="z_plus")


def test_original_rules_do_not_mix_the_images_of_a_batch() -> None:
    model, x = build("cls"), images("cls")
    together = LRP(model).attribute(x, target=[1, 3, 0], rules="original", attribute_to="tokens")
    for image, target, found in zip(x, (1, 3, 0), together, strict=True):
        alone = LRP(model).attribute(image[None], target=target, rules="original", attribute_to="tokens")[0]
        torch.testing.assert_close(found, alone, rtol=1e-9, atol=1e-9 * float(alone.abs().max()))


@pytest.mark.parametrize("name", reference.TRACED)
def test_lrp_conserves(name: str) -> None:
    """Relevance at the tokens is conserved."""
    tokens = LRP(build(name)).attribute(images(name), target=reference.TARGET, attribute_to="tokens")
    torch.testing.assert_close(tokens.sum(1), torch.ones(3, dtype=torch.float64), rtol=1e-8, atol=0)


# written out, differential attention subtracts its maps before the product: another order of the z+ rules
@pytest.mark.parametrize(
    ("method", "name"),
    [
        (method, name)
        for method in (LRP, TransformerAttribution, AttnLRP, ConservativeLRP)
        for name in reference.TRACED
        if "beit" not in name
        and "relative" not in name
        and not ("diff" in name and method in (LRP, TransformerAttribution))
    ],
)
@pytest.mark.one_in(3)
def test_fused_and_written_out_attention_agree(method: Any, name: str) -> None:
    """Two code paths of the rules. A position bias gets a share only if it is added explicitly."""
    fused, open_ = build(name), build(name)
    for module in open_.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = 0  # off, and not turned on for the pass
    x = images(name, 1)
    given = {"target": reference.TARGET, "attribute_to": "tokens"}
    expected = method(fused).attribute(x, **given)
    got = method(open_).attribute(x, **given)
    assert (got - expected).abs().max() <= 1e-7 * expected.abs().max()


def test_operations_without_a_rule_are_rejected() -> None:
    model = build("cls")
    model.norm_pre = torch.nn.Softplus()
    with pytest.raises(UnsupportedModelError, match="softplus has no propagation rule"):
        LRP(model).attribute(images("cls"), target=1)
    with pytest.raises(UnsupportedModelError, match="softplus has no propagation rule"):
        AttnLRP(model).attribute(images("cls"), target=1)


class OwnRms(RmsNorm):
    """A custom norm, which may compute anything."""


def test_rejected_model_is_unchanged() -> None:
    model = _vit(norm_layer=RmsNorm).eval()
    model.blocks[2].norm2 = OwnRms(SMALL["embed_dim"])
    for method in (LRP, AttnLRP, ConservativeLRP):
        with pytest.raises(UnsupportedModelError, match="OwnRms has no propagation rule"):
            method(model).attribute(images("cls", dtype=torch.float32), target=1)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "mode", [ConstantWeights, SharedGradients, Relevance, OriginalRelevance], ids=lambda m: m.__name__
)
def test_rules_leave_the_output_unchanged(mode: Any, name: str) -> None:
    model, x = build(name), images(name)
    expected = model(x)
    model.requires_grad_(False)
    rules = mode(model, lambda: None) if issubclass(mode, Relevance) else mode(model)
    with rules:
        got = model(x.clone().requires_grad_(True))
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


class Stem(nn.Module):
    """Norms over channels and positions, with activations inside them and in-place operations after."""

    def __init__(self, inside: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = nn.Conv2d(3, 16, 3, 1, 1).double()
        self.model = build("cls")
        self.back = nn.Conv2d(16, 3, 1).double()
        self.inside = inside
        self.layer = (LayerNormAct2d(16, act_layer=nn.SiLU) if inside else LayerNorm2d(16, eps=1e-5)).double()
        self.group = (
            GroupNormAct(16, num_groups=4, act_layer=nn.SiLU) if inside else nn.GroupNorm(4, 16, 1e-5)
        ).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(self.conv(x))
        y = y if self.inside else F.silu(y)
        y = self.group(y)
        y = y if self.inside else F.silu(y)
        y = self.back(y)
        if self.inside:
            y.mul_(y.detach().abs())
            y.add_(1.0)
        else:
            y = y * y.detach().abs() + 1.0
        return self.model(y)


@pytest.mark.parametrize("method", [LRP, TransformerAttribution, AttnLRP, ConservativeLRP], ids=lambda m: m.__name__)
def test_the_same_model_written_in_two_ways(method: Any) -> None:
    one, other, x = Stem(True).eval(), Stem(False).eval(), images("cls")
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(one(x), other(x))
    got = method(one).attribute(x, target=reference.TARGET)
    torch.testing.assert_close(got, method(other).attribute(x, target=reference.TARGET), rtol=1e-6, atol=1e-9)


class EinsumAttention(Attention):
    def forward(self, x: torch.Tensor, attn_mask: Any = None, is_causal: bool = False) -> torch.Tensor:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        attention = torch.einsum("bhid,bhjd->bhij", q * self.scale, k).softmax(-1)
        return self.proj(torch.einsum("bhij,bhjd->bhid", attention, v).transpose(1, 2).flatten(2))


def test_products_by_einsum() -> None:
    plain, written = build("cls"), _vit(attn_layer=EinsumAttention).double().eval()
    written.load_state_dict(plain.state_dict())
    for method in (AttnLRP, ConservativeLRP):
        got = method(written).attribute(images("cls"), target=reference.TARGET)
        torch.testing.assert_close(got, method(plain).attribute(images("cls"), target=reference.TARGET))


def test_precision_does_not_depend_on_autocast() -> None:
    model, x = build("cls", torch.float32), images("cls", dtype=torch.float32)
    expected = LRP(model).attribute(x, target=reference.TARGET, attribute_to="tokens")
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(LRP(model).attribute(x, target=reference.TARGET, attribute_to="tokens"), expected)


def test_dropout_in_train_mode_conserves() -> None:
    model = _vit(drop_rate=0.3, proj_drop_rate=0.3).double().train()
    with pytest.warns(UserWarning, match="train mode"):
        tokens = LRP(model).attribute(images("cls"), target=reference.TARGET, attribute_to="tokens")
    torch.testing.assert_close(tokens.sum(1), torch.ones(3, dtype=torch.float64), rtol=1e-8, atol=0)
    model = _vit(attn_drop_rate=0.3).double().train()
    with pytest.warns(UserWarning, match="train mode"), pytest.raises(UnsupportedModelError, match="dropout is active"):
        LRP(model).attribute(images("cls"), target=reference.TARGET)


@pytest.mark.parametrize("method", [LRP, TransformerAttribution])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_relevance_is_computed_in_float64(method: Any, dtype: torch.dtype) -> None:
    model, x = build("cls", dtype), images("cls", dtype=dtype)
    exact, given = copy.deepcopy(model).double(), {"target": reference.TARGET, "attribute_to": "tokens"}
    expected = method(exact).attribute(x.double(), **given).to(dtype)
    found = method(model).attribute(x, **given)
    assert found.dtype == dtype
    assert torch.equal(found, expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(method(model).attribute(x, **given), expected)
    narrow = method(copy.deepcopy(model).float()).attribute(x.float(), **given, precision="float32").to(dtype)
    assert torch.equal(method(model).attribute(x, **given, precision="float32"), narrow)
    if dtype == torch.float32:
        assert not torch.equal(narrow, expected)
        assert torch.equal(method(exact).attribute(x.double(), **given, precision="float32").to(dtype), expected)
    with pytest.raises(ValueError, match="precision must be 'float64' or 'float32', which is faster, not 'half'"):
        method(model).attribute(x, **given, precision="half")
