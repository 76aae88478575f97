"""The LRP family: against the rules applied one by one, and its properties, on every family."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import GroupNormAct, LayerNorm2d, LayerNormAct2d, RmsNorm
from timm.layers.attention import Attention
from torch import nn

from captum_astro import LRP, AttnLRP, ConservativeLRP, TransformerAttribution, UnsupportedModelError
from captum_astro.capture.gradient_rules import ConstantWeights, SharedGradients
from captum_astro.capture.relevance_rules import Relevance
from captum_astro.layouts.base import layout_for
from tests import twin_rules, twins
from tests.families import EFFECTIVE, FAMILIES, SMALL, _vit, build, images

TARGET = 3
TRACED = [name for name in FAMILIES if name not in EFFECTIVE]  # whose operations the rules know one by one


@lru_cache(maxsize=2)
def _traced(name: str) -> twin_rules.Trace:
    model = build(name)
    return twin_rules.Trace(model, images(name, 1), layout_for(model).stages[0].stream.module)


def _agree(method: Any, name: str, expected: torch.Tensor, **given: Any) -> None:
    got = method(build(name)).attribute(images(name, 1), target=TARGET, **given)[0]
    assert (got - expected).abs().max() <= 1e-10 * expected.abs().max()


@pytest.mark.parametrize("name", TRACED)
def test_lrp_agrees_with_the_rules_one_by_one(name: str) -> None:
    trace = _traced(name)
    arrived = trace.back(TARGET, twin_rules.DeepTaylor())
    _agree(LRP, name, arrived[trace.tokens].sum(-1)[0], attribute_to="tokens")
    _agree(LRP, name, arrived[trace.image][0])


@pytest.mark.parametrize("name", TRACED)
@pytest.mark.parametrize(("method", "attn"), [(AttnLRP, True), (ConservativeLRP, False)])
def test_gradient_rules_agree_with_the_rules_one_by_one(method: Any, attn: bool, name: str) -> None:
    trace = _traced(name)
    arrived = trace.back(TARGET, twin_rules.Gradients(attn))
    tokens, pixels = (arrived[node] * trace.values[node] for node in (trace.tokens, trace.image))
    _agree(method, name, tokens.sum(-1)[0], attribute_to="tokens")
    _agree(method, name, pixels[0])
    # what arrives at the pixels is what the patch embedding hands on
    _agree(method, name, pixels[0].sum(0, keepdim=True), attribute_to="pixels")


@pytest.mark.parametrize("name", TRACED)
def test_transformer_attribution_agrees_with_the_rules_one_by_one(name: str) -> None:
    trace, relevance, gradients = _traced(name), twin_rules.DeepTaylor(), twin_rules.AttentionGradients()
    trace.back(TARGET, relevance)
    trace.back(TARGET, gradients)
    model, taken, readout = twins.of_family(name, TARGET)
    pooling: Any = None
    if taken.pool is not None:
        _, queries, first = twins.last_attention(model, taken, readout)
        pooling = queries, first
    both = 2 if "differential" in name else 1  # each of its layers has two maps
    counts = [both * sum(part.attention is not None for part in parts) for _, parts in taken.stages]
    _agree(
        TransformerAttribution,
        name,
        twin_rules.transformer_attribution(relevance.maps, gradients.maps, counts, pooling, readout),
        attribute_to="tokens",
    )


@pytest.mark.parametrize("name", TRACED)
def test_lrp_conserves(name: str) -> None:
    """Relevance at the tokens is conserved."""
    tokens = LRP(build(name)).attribute(images(name), target=TARGET, attribute_to="tokens")
    torch.testing.assert_close(tokens.sum(1), torch.ones(3, dtype=torch.float64), rtol=1e-8, atol=0)


def _homogeneous(name: str) -> nn.Module:
    model = build(name)
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            if path.endswith("bias"):
                parameter.zero_()
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.GELU):
            parent = model.get_submodule(path.rpartition(".")[0])
            setattr(parent, path.rpartition(".")[2], nn.ReLU())
    return model


@pytest.mark.parametrize("name", ["cls", "registers", "average", "distilled", "parallel_things", "relative_position"])
def test_conservative_lrp_conserves_relevance_without_biases(name: str) -> None:
    model, x = _homogeneous(name), images(name)
    tokens = ConservativeLRP(model).attribute(x, target=TARGET, attribute_to="tokens")
    torch.testing.assert_close(tokens.sum(1), model(x)[:, TARGET].detach(), rtol=1e-8, atol=0)


# written out, differential attention subtracts its maps before the product: another order of the z+ rules
@pytest.mark.parametrize(
    ("method", "name"),
    [
        (method, name)
        for method in (LRP, TransformerAttribution, AttnLRP, ConservativeLRP)
        for name in TRACED
        if "beit" not in name
        and "relative" not in name
        and not ("diff" in name and method in (LRP, TransformerAttribution))
    ],
)
def test_fused_and_written_out_attention_agree(method: Any, name: str) -> None:
    """Two code paths of the rules. A position bias gets a share only if it is added explicitly."""
    fused, open_ = build(name), build(name)
    for module in open_.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = 0  # off, and not turned on for the pass
    x = images(name, 1)
    given = {"target": TARGET, "attribute_to": "tokens"}
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
@pytest.mark.parametrize("mode", [ConstantWeights, SharedGradients, Relevance], ids=lambda m: m.__name__)
def test_rules_leave_the_output_unchanged(mode: Any, name: str) -> None:
    model, x = build(name), images(name)
    expected = model(x)
    model.requires_grad_(False)
    rules = mode(model, lambda: None) if mode is Relevance else mode(model)
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
    got = method(one).attribute(x, target=TARGET)
    torch.testing.assert_close(got, method(other).attribute(x, target=TARGET), rtol=1e-6, atol=1e-9)


class EinsumAttention(Attention):
    def forward(self, x: torch.Tensor, attn_mask: Any = None, is_causal: bool = False) -> torch.Tensor:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        attention = torch.einsum("bhid,bhjd->bhij", q * self.scale, k).softmax(-1)
        return self.proj(torch.einsum("bhij,bhjd->bhid", attention, v).transpose(1, 2).flatten(2))


def test_products_by_einsum() -> None:
    plain, written = build("cls"), _vit(attn_layer=EinsumAttention).double().eval()
    written.load_state_dict(plain.state_dict())
    for method in (AttnLRP, ConservativeLRP):
        got = method(written).attribute(images("cls"), target=TARGET)
        torch.testing.assert_close(got, method(plain).attribute(images("cls"), target=TARGET))


def test_precision_does_not_depend_on_autocast() -> None:
    model, x = build("cls", torch.float32), images("cls", dtype=torch.float32)
    expected = LRP(model).attribute(x, target=TARGET, attribute_to="tokens")
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(LRP(model).attribute(x, target=TARGET, attribute_to="tokens"), expected)


def test_dropout_in_train_mode_conserves() -> None:
    model = _vit(drop_rate=0.3, proj_drop_rate=0.3).double().train()
    with pytest.warns(UserWarning, match="train mode"):
        tokens = LRP(model).attribute(images("cls"), target=TARGET, attribute_to="tokens")
    torch.testing.assert_close(tokens.sum(1), torch.ones(3, dtype=torch.float64), rtol=1e-8, atol=0)
    model = _vit(attn_drop_rate=0.3).double().train()
    with pytest.warns(UserWarning, match="train mode"), pytest.raises(UnsupportedModelError, match="dropout is active"):
        LRP(model).attribute(images("cls"), target=TARGET)


class _Passed(torch.autograd.Function):
    """In the peer's explicit mode relevance travels as the gradient: an activation passes it on."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        return output

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        return relevance[0], None


def test_attn_lrp_agrees_with_the_authors_package() -> None:
    """lxt divides by stabilised denominators, this package uses the limit: close, not equal."""
    lf = pytest.importorskip("lxt.explicit.functional", reason="pip install 'captum-astro[peers]' to compare with it")
    model, image = build("cls"), images("cls", 1)
    model.requires_grad_(False)
    x0 = model._pos_embed(model.patch_embed(image)).detach().requires_grad_(True)
    x = x0

    def linear(layer: nn.Linear, tokens: torch.Tensor) -> torch.Tensor:
        return lf.linear_epsilon(tokens, layer.weight, layer.bias, 1e-10)

    def norm(layer: nn.LayerNorm, tokens: torch.Tensor) -> torch.Tensor:
        return lf.layer_norm(tokens, layer.weight, layer.bias, layer.eps)

    for block in model.blocks:
        heads = block.attn.num_heads
        q, k, v = linear(block.attn.qkv, norm(block.norm1, x)).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        scores = lf.matmul(q, k.transpose(-2, -1), epsilon=1e-12)
        attention = lf.softmax(scores, -1, temperature=1 / block.attn.scale)
        mixed = lf.matmul(attention, v, epsilon=1e-12).transpose(1, 2).flatten(2)
        x = lf.add2(x, linear(block.attn.proj, mixed), epsilon=1e-12)
        hidden = linear(block.mlp.fc1, norm(block.norm2, x))
        x = lf.add2(x, linear(block.mlp.fc2, _Passed.apply(hidden, F.gelu(hidden).detach())), epsilon=1e-12)
    score = linear(model.head, norm(model.norm, x)[:, 0])[0, TARGET]
    (relevance,) = torch.autograd.grad(score, x0, score.detach())
    got = AttnLRP(model).attribute(image, target=TARGET, attribute_to="tokens")[0]
    expected = relevance.sum(-1)[0]
    assert (got - expected).abs().max() <= 1e-3 * expected.abs().max()


@pytest.mark.parametrize("method", [LRP, TransformerAttribution])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_relevance_is_computed_in_float64(method: Any, dtype: torch.dtype) -> None:
    model, x = build("cls", dtype), images("cls", dtype=dtype)
    exact, given = copy.deepcopy(model).double(), {"target": TARGET, "attribute_to": "tokens"}
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
