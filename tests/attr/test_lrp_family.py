"""The LRP family: explicit twins on a plain ViT, properties on every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import GroupNormAct, LayerNorm2d, LayerNormAct2d
from timm.layers.attention import Attention
from torch import nn

from captum_astro import LRP, AttnLRP, ConservativeLRP, TransformerAttribution, UnsupportedModelError
from captum_astro.capture.gradient_rules import ConstantWeights, SharedGradients
from captum_astro.capture.relevance_rules import Relevance
from tests.families import FAMILIES, _vit, build, images

TARGET = 3
PLAIN = ["cls", "registers", "average", "no_biases", "distilled"]


class Explicit:
    """The CVPR 2021 relevance of one image, layer by layer from the published equations. ``(n, d)`` everywhere."""

    def __init__(self, model: Any, image: torch.Tensor) -> None:
        self.model, self.maps = model, []
        model.requires_grad_(False)
        self.image = image[0]
        patches = F.conv2d(image, model.patch_embed.proj.weight, model.patch_embed.proj.bias, 8)
        self.patches = patches.flatten(2)[0].T
        self.states = []
        prefix = [t[0] for t in (model.cls_token, getattr(model, "dist_token", None), model.reg_token) if t is not None]
        if model.no_embed_class:
            self.embedded = [self.patches, model.pos_embed[0]]
            x = torch.cat([*prefix, self.patches + model.pos_embed[0]])
        else:
            self.embedded = [torch.cat([*prefix, self.patches]), model.pos_embed[0]]
            x = self.embedded[0] + self.embedded[1]
        self.prefix = len(x) - len(self.patches)
        for block in model.blocks:
            state: dict[str, torch.Tensor] = {"x": x, "n1": block.norm1(x)}
            heads = block.attn.num_heads
            qkv = F.linear(state["n1"], block.attn.qkv.weight, block.attn.qkv.bias)
            q, k, v = qkv.reshape(len(x), 3, heads, -1).permute(1, 2, 0, 3)
            a = (q @ k.transpose(-2, -1) * block.attn.scale).softmax(-1)
            state |= {"q": q, "k": k, "v": v, "a": a, "o": a @ v}
            state["oc"] = state["o"].transpose(0, 1).flatten(1)
            state["branch"] = block.ls1(block.attn.proj(state["oc"]))
            state["y"] = x + state["branch"]
            state["n2"] = block.norm2(state["y"])
            state["h"] = block.mlp.fc1(state["n2"])
            state["g"] = block.mlp.act(state["h"])
            state["ffn"] = block.ls2(block.mlp.fc2(state["g"]))
            x = state["y"] + state["ffn"]
            self.states.append(state)
        self.last = model.norm(x)

    @staticmethod
    def linear(x: torch.Tensor, weight: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        positive = (x[:, None] * weight[None]).clamp(min=0)  # (n, out, in)
        return (positive / positive.sum(-1, keepdim=True) * r[..., None]).nan_to_num(0).sum(1)

    @staticmethod
    def add(a: torch.Tensor, b: torch.Tensor, r: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        ra, rb = a / (a + b) * r, b / (a + b) * r
        sizes = ra.sum().abs() + rb.sum().abs()
        return ra * (ra.sum().abs() / sizes * r.sum() / ra.sum()), rb * (rb.sum().abs() / sizes * r.sum() / rb.sum())

    @staticmethod
    def product(a: torch.Tensor, b: torch.Tensor, r: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        s = r / (a @ b) / 2
        return a * (s @ b.transpose(-2, -1)), b * (a.transpose(-2, -1) @ s)

    def back(self, target: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Relevance of tokens ``(n,)`` and pixels ``(3, H, W)``; R_A is kept in ``maps``, last layer first."""
        model = self.model
        one_hot = torch.eye(model.head.weight.shape[0], dtype=torch.float64)[target]
        r = torch.zeros_like(self.last)
        if hasattr(model, "head_dist"):
            first, second = model.head(self.last[0]), model.head_dist(self.last[1])
            ra, rb = self.add(first, second, one_hot)
            r[0] = self.linear(self.last[:1], model.head.weight, ra[None])[0]
            r[1] = self.linear(self.last[1:2], model.head_dist.weight, rb[None])[0]
        elif model.global_pool == "avg":
            pooled = self.last[self.prefix :].mean(0)
            rp = self.linear(model.fc_norm(pooled)[None], model.head.weight, one_hot[None])[0]
            r[self.prefix :] = self.last[self.prefix :] / self.last[self.prefix :].sum(0) * rp
        else:
            r[0] = self.linear(self.last[:1], model.head.weight, one_hot[None])[0]
        for block, s in zip(reversed(model.blocks), reversed(self.states), strict=True):
            ry, rf = self.add(s["y"], s["ffn"], r)
            ry = ry + self.linear(s["n2"], block.mlp.fc1.weight, self.linear(s["g"], block.mlp.fc2.weight, rf))
            rx, rb = self.add(s["x"], s["branch"], ry)
            heads = block.attn.num_heads
            ro = self.linear(s["oc"], block.attn.proj.weight, rb).reshape(len(ry), heads, -1).transpose(0, 1)
            ra, rv = self.product(s["a"], s["v"], ro)
            self.maps.append(ra)
            rq, rk = self.product(s["q"], s["k"].transpose(-2, -1), ra)
            rqkv = torch.stack([rq, rk.transpose(-2, -1), rv]).permute(2, 0, 1, 3).flatten(1)
            r = rx + self.linear(s["n1"], block.attn.qkv.weight, rqkv)
        tokens = r.sum(1)
        if model.no_embed_class:
            rp, _ = self.add(self.embedded[0], self.embedded[1], r[self.prefix :])
        else:
            rp = self.add(self.embedded[0], self.embedded[1], r)[0][self.prefix :]
        return tokens, self.pixels(rp)

    def pixels(self, r: torch.Tensor) -> torch.Tensor:
        """z^B, patch by patch."""
        weight, out = self.model.patch_embed.proj.weight, torch.zeros_like(self.image)
        low, high = self.image.min(), self.image.max()
        for p in range(len(r)):
            row, column = divmod(p, self.image.shape[2] // 8)
            window = (slice(None), slice(8 * row, 8 * row + 8), slice(8 * column, 8 * column + 8))
            x = self.image[window]
            z = x * weight - low * weight.clamp(min=0) - high * weight.clamp(max=0)
            out[window] += (z / z.sum((1, 2, 3), keepdim=True) * r[p][:, None, None, None]).sum(0)
        return out


@pytest.mark.parametrize("name", PLAIN)
def test_lrp_agrees_with_the_explicit_form(name: str) -> None:
    model, x = build(name), images(name, 1)
    tokens, pixels = Explicit(model, x).back(TARGET)
    got = LRP(model).attribute(x, target=TARGET, attribute_to="tokens")[0]
    assert (got - tokens).abs().max() <= 1e-9 * tokens.abs().max()
    got = LRP(model).attribute(x, target=TARGET)[0]
    assert (got - pixels).abs().max() <= 1e-9 * pixels.abs().max()


@pytest.mark.parametrize("name", PLAIN)
def test_transformer_attribution_agrees_with_the_explicit_form(name: str) -> None:
    model, x = build(name), images(name, 1)
    explicit = Explicit(model, x)
    explicit.back(TARGET)
    kept = []
    for block in model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda m, a, o: kept.append(o))
    gradients = torch.autograd.grad(model(x.clone().requires_grad_(True))[0, TARGET], kept)
    n = len(explicit.last)
    product = torch.eye(n, dtype=torch.float64)
    for relevance, gradient in zip(reversed(explicit.maps), gradients, strict=True):
        product = (torch.eye(n, dtype=torch.float64) + (relevance * gradient[0]).clamp(min=0).mean(0)) @ product
    row = product[0]
    if name == "distilled":
        row = product[:2].mean(0)
    elif name == "average":
        row = product.mean(0)
    model = build(name)
    got = TransformerAttribution(model).attribute(x, target=TARGET, attribute_to="tokens")[0]
    assert (got - row).abs().max() <= 1e-9 * row.abs().max()


@pytest.mark.parametrize("name", FAMILIES)
def test_lrp_conserves(name: str) -> None:
    """All relevance arrives at the tokens."""
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
def test_conservative_lrp_conserves_without_biases(name: str) -> None:
    model, x = _homogeneous(name), images(name)
    tokens = ConservativeLRP(model).attribute(x, target=TARGET, attribute_to="tokens")
    torch.testing.assert_close(tokens.sum(1), model(x)[:, TARGET].detach(), rtol=1e-8, atol=0)


@pytest.mark.parametrize("name", [n for n in FAMILIES if "beit" not in n and "relative" not in n])
@pytest.mark.parametrize("method", [LRP, TransformerAttribution, AttnLRP, ConservativeLRP], ids=lambda m: m.__name__)
def test_fused_and_written_out_attention_agree(method: Any, name: str) -> None:
    """Two ways through the rules. A bias of positions takes a share only where it is added in the open."""
    fused, open_ = build(name), build(name)
    for module in open_.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = 0  # off, and not turned on for the pass
    x = images(name, 1)
    given = {"target": TARGET, "attribute_to": "tokens"}
    if "diff" in name and method in (LRP, TransformerAttribution):
        pytest.skip("written out, the two maps are subtracted before the product: another order of the same rules")
    expected = method(fused).attribute(x, **given)
    got = method(open_).attribute(x, **given)
    assert (got - expected).abs().max() <= 1e-7 * expected.abs().max()


class ExplicitGradients:
    """AttnLRP and Conservative LRP with unfused attention and each rule in the open, for plain blocks."""

    def __init__(self, model: Any, attn: bool) -> None:
        self.model, self.attn = model, attn

    def norm(self, norm: nn.LayerNorm, x: torch.Tensor) -> torch.Tensor:
        sigma = (x.var(-1, keepdim=True, unbiased=False) + norm.eps).sqrt().detach()
        return (x - x.mean(-1, keepdim=True)) / sigma * norm.weight + norm.bias

    def half(self, x: torch.Tensor) -> torch.Tensor:
        return x / 2 + x.detach() / 2 if self.attn else x

    def tokens(self, image: torch.Tensor, target: int) -> torch.Tensor:
        model = self.model
        x0 = model._pos_embed(model.patch_embed(image)).detach().requires_grad_(True)
        x = x0
        for block in model.blocks:
            heads = block.attn.num_heads
            qkv = block.attn.qkv(self.norm(block.norm1, x)).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
            q, k, v = qkv
            a = (self.half(q) @ self.half(k).transpose(-2, -1) * block.attn.scale).softmax(-1)
            a = self.half(a) if self.attn else a.detach()
            x = x + block.attn.proj((a @ self.half(v)).transpose(1, 2).flatten(2))
            h = block.mlp.fc1(self.norm(block.norm2, x))
            g = h * (block.mlp.act(h) / h).detach() if self.attn else block.mlp.act(h)
            x = x + block.mlp.fc2(g)
        score = model.head(self.norm(model.norm, x)[:, 0])[0, target]
        return (x0 * torch.autograd.grad(score, x0)[0]).sum(-1)[0].detach()


@pytest.mark.parametrize(("method", "attn"), [(AttnLRP, True), (ConservativeLRP, False)])
def test_gradient_rules_agree_with_the_explicit_form(method: Any, attn: bool) -> None:
    model, x = build("cls"), images("cls", 1)
    expected = ExplicitGradients(model, attn).tokens(x, TARGET)
    got = method(model).attribute(x, target=TARGET, attribute_to="tokens")[0]
    assert (got - expected).abs().max() <= 1e-10 * expected.abs().max()
    # what arrives at the pixels is what the patch embedding hands on
    whole = method(model).attribute(x, target=TARGET)
    torch.testing.assert_close(
        method(model).attribute(x, target=TARGET, attribute_to="pixels"), whole.sum(1, keepdim=True)
    )


def test_operations_without_a_rule_are_refused() -> None:
    model = build("cls")
    model.norm_pre = torch.nn.Softplus()
    with pytest.raises(UnsupportedModelError, match="softplus has no propagation rule"):
        LRP(model).attribute(images("cls"), target=1)
    with pytest.raises(UnsupportedModelError, match="softplus has no propagation rule"):
        AttnLRP(model).attribute(images("cls"), target=1)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("mode", [ConstantWeights, SharedGradients, Relevance], ids=lambda m: m.__name__)
def test_rules_leave_the_output_as_it_is(mode: Any, name: str) -> None:
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


class Pairs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = build("cls")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.model(x)
        return torch.stack([logits, logits * 2], 1)


@pytest.mark.parametrize("method", [LRP, TransformerAttribution, AttnLRP, ConservativeLRP], ids=lambda m: m.__name__)
def test_targets_of_more_dimensions(method: Any) -> None:
    pairs, x = Pairs().eval(), images("cls")
    expected = method(pairs.model).attribute(x, target=TARGET)
    torch.testing.assert_close(method(pairs).attribute(x, target=(0, TARGET)), expected)
    torch.testing.assert_close(method(pairs).attribute(x, target=[(0, TARGET)] * 3), expected)


class _Passed(torch.autograd.Function):
    """In the peer's explicit mode relevance travels as the gradient: an activation passes it on."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        return output

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        return relevance[0], None


def test_attn_lrp_agrees_with_the_authors_package() -> None:
    """lxt divides by stabilised denominators, ours is the limit: close, not equal."""
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
