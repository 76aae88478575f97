from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.optim import param_groups_weight_decay

from captum_astro.functional.astromorphic_effective import effective_attention
from captum_astro.models.astromorphic import AstromorphicAttention, AstromorphicBlock, SoftmaxAttention
from captum_astro.models.astromorphic_vit import AstromorphicVisionTransformer
from tests.functional.test_astromorphic import twin

OPTIONS = [
    {"nonlinearity": n, "relative_position": r, "alpha": a, "num_heads": h, "output_projection": o, "causal": c}
    for n, r, a, h, o, c in itertools.product(
        ("inside", "outside", "none"), (True, False), (0.25, 1.0), (1, 2), (False, True), (False, True)
    )
]
NAMES = {
    "astromorphic_vit_tiny_patch16_224": (3, 224, 1000),
    "astromorphic_vit_small_patch16_224": (3, 224, 1000),
    "astromorphic_vit_cifar10": (3, 32, 10),
    "astromorphic_cifar10_tiny_patch4_32": (3, 32, 10),
    "astromorphic_scenes_tiny_patch8_64": (3, 64, 10),
}
SMALL = {
    "astromorphic_vit_tiny_patch16_224": {"img_size": 64, "embed_dim": 24, "depth": 3},
    "astromorphic_vit_small_patch16_224": {"img_size": 64, "embed_dim": 24, "depth": 3},
    "astromorphic_vit_cifar10": {"embed_dim": 24, "depth": 3, "stem_width": 8, "img_size": 16},
    "astromorphic_cifar10_tiny_patch4_32": {"embed_dim": 24, "depth": 3, "stem_width": 8, "img_size": 16},
    "astromorphic_scenes_tiny_patch8_64": {"embed_dim": 24, "depth": 3, "img_size": 16},
}


def small(name: str, **changes: Any) -> tuple[Any, torch.Tensor]:
    """A model of few parameters, in float64, and two images."""
    args = SMALL[name] | changes
    model = timm.create_model(name, **args).eval().double()
    return model, torch.randn(2, 3, args["img_size"], args["img_size"], dtype=torch.float64)


def by_loops(attention: AstromorphicAttention, x: torch.Tensor) -> torch.Tensor:
    """One sample ``(n, dim)``, token by token."""
    heads, m, width = attention.num_heads, attention.hidden_dim, attention.head_dim
    q, k, v = (x @ w.T for w in attention.qkv.weight.split((heads * m, heads * m, heads * width)))
    mixed = [
        twin(
            q[:, h * m : (h + 1) * m], k[:, h * m : (h + 1) * m], v[:, h * width : (h + 1) * width],
            None if attention.positions is None else attention.positions[h], None, attention.position_scale,
            attention.nonlinearity, attention.alpha, attention.causal, attention.scale,
        )
        for h in range(heads)
    ]  # fmt: skip
    out = torch.cat(mixed, 1)
    if isinstance(attention.proj, torch.nn.Linear):
        out = out @ attention.proj.weight.T + attention.proj.bias
    return out


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(str(v) for v in o.values()))
def test_the_module_token_by_token(options: dict[str, Any]) -> None:
    attention = AstromorphicAttention(dim=4, num_tokens=6, hidden_dim=3, **options).double()
    x = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    found, expected = attention(x), torch.stack([by_loops(attention, sample) for sample in x])
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    cotangent, wanted = torch.randn_like(found), [x, *attention.parameters()]
    ours, theirs = (torch.autograd.grad(out, wanted, cotangent) for out in (found, expected))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_the_defaults() -> None:
    attention = AstromorphicAttention(dim=32, num_heads=4, num_tokens=49)
    assert (attention.alpha, attention.nonlinearity, attention.scale) == (0.25, "inside", 8.0)
    assert attention.position_scale == 7
    assert isinstance(attention.proj, torch.nn.Identity)
    assert attention.positions.shape == (4, 8, 49)
    assert {name for name, _ in attention.named_parameters()} == {"qkv.weight", "positions"}
    assert "alpha=0.25" in repr(attention)


@pytest.mark.parametrize("attention", ["astromorphic", "softmax"])
def test_the_block_is_post_norm(attention: Any) -> None:
    block = AstromorphicBlock(16, 4, num_tokens=9, attention=attention).double().eval()
    x = torch.randn(2, 9, 16, dtype=torch.float64)
    y = F.layer_norm(block.attn(x) + x, (16,))
    expected = F.layer_norm(block.mlp(y) + y, (16,))
    torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)


def test_dropout_stands_between_the_sum_and_the_norm() -> None:
    block = AstromorphicBlock(16, 4, num_tokens=9, drop=0.5)
    seen = []
    block.drop1.register_forward_hook(lambda m, inputs, output: seen.append(output))
    block.norm1.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0]))
    block(torch.randn(2, 9, 16))
    assert seen[0] is seen[1]
    assert 0.3 < (seen[0] == 0).float().mean() < 0.7


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("attention", ["astromorphic", "softmax"])
def test_padding_and_the_future_change_nothing(attention: Any, causal: bool) -> None:
    block = AstromorphicBlock(16, 4, num_tokens=12, attention=attention, causal=causal).double().eval()
    x = torch.randn(2, 12, 16, dtype=torch.float64)
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[:, 8:] = False
    short = block(x[:, :8])
    torch.testing.assert_close(block(x, mask)[:, :8], short, rtol=1e-12, atol=1e-12)
    noisy = torch.cat([x[:, :8], torch.randn_like(x[:, 8:])], 1)
    torch.testing.assert_close(block(noisy, mask)[:, :8], short, rtol=1e-12, atol=1e-12)
    if causal:
        torch.testing.assert_close(block(x)[:, :8], short, rtol=1e-12, atol=1e-12)
    mask[1] = False
    assert block(x, mask).isfinite().all()


def test_softmax_attention_is_timms() -> None:
    ours, theirs = SoftmaxAttention(16, 4), timm.layers.Attention(16, 4)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 9, 16)
    assert torch.equal(ours(x), theirs(x))
    masked = SoftmaxAttention(16, 4, causal=True)
    mask = torch.ones(2, 9, dtype=torch.bool)
    torch.testing.assert_close(masked(x, mask), masked(x))


def test_a_shorter_sequence_uses_the_first_places() -> None:
    attention = AstromorphicAttention(dim=16, num_heads=4, num_tokens=12)
    assert torch.equal(attention.position_keys(5), attention.position_keys(12)[:, :5])
    with pytest.raises(ValueError, match="at most 12 tokens but received 13"):
        attention(torch.randn(1, 13, 16))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_heads": 3}, "num_heads must divide dim"), ({"num_tokens": 0}, "num_tokens must be at least 1"),
        ({"alpha": -1.0}, "alpha must be at least 0"), ({"scale": 0.0}, "scale must be above 0"),
        ({"nonlinearity": "x"}, "nonlinearity must be one of"),
        ({"position_scale": 0.0}, "position_scale must be above 0"),
        ({"attention": "linear"}, "attention must be one of astromorphic, softmax"),
    ],
)  # fmt: skip
def test_bad_options(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AstromorphicBlock(**({"dim": 16, "num_heads": 4, "num_tokens": 5} | wrong))


@pytest.mark.parametrize(("nonlinearity", "causal"), [("inside", False), ("none", True)])
def test_bfloat16_stays_finite_while_it_trains(nonlinearity: Any, causal: bool) -> None:
    block = AstromorphicBlock(16, 2, num_tokens=20, nonlinearity=nonlinearity, causal=causal).bfloat16()
    optimiser = torch.optim.AdamW(block.parameters(), lr=3e-2)
    x, y = torch.randn(2, 4, 20, 16).bfloat16().unbind()
    for _ in range(1000):
        loss = (block(x) - y).float().square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        assert loss.isfinite()
    assert all(p.isfinite().all() for p in block.parameters())


def test_autocast_trains_in_bfloat16_and_attends_in_float32() -> None:
    block = AstromorphicBlock(16, 2, num_tokens=20)
    with torch.autocast("cpu", torch.bfloat16):
        out = block.attn(torch.randn(2, 20, 16))
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert all(p.grad.isfinite().all() for p in block.attn.parameters())


@pytest.mark.parametrize("causal", [False, True])
def test_the_module_is_its_effective_attention(causal: bool) -> None:
    attention = AstromorphicAttention(dim=12, num_heads=3, num_tokens=9, causal=causal).double()
    x = torch.randn(2, 9, 12, dtype=torch.float64)
    effective = effective_attention(
        *attention.split_heads(x), attention.position_keys(9), scale=attention.scale, causal=causal
    )
    rebuilt = effective.contributions(0, 9).sum(3) + effective.constant
    torch.testing.assert_close(rebuilt.transpose(1, 2).flatten(2), attention(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_created_by_timm(name: str) -> None:
    assert name in timm.list_models("astromorphic_*")
    channels, size, classes = NAMES[name]
    model = timm.create_model(name).eval()
    assert isinstance(model, AstromorphicVisionTransformer)
    assert model(torch.randn(2, channels, size, size)).shape == (2, classes)
    assert model.default_cfg is model.pretrained_cfg
    assert model.default_cfg["input_size"] == (channels, size, size)
    modules = dict(model.named_modules())
    assert isinstance(modules[model.default_cfg["first_conv"]], torch.nn.Conv2d)
    assert modules[model.default_cfg["classifier"]] is model.get_classifier()
    assert timm.data.resolve_model_data_config(model)["input_size"] == (channels, size, size)
    if "scenes" in name:
        assert sum(p.numel() for p in model.parameters()) < 1_000_000


@pytest.mark.parametrize("name", NAMES)
def test_interface(name: str, tmp_path: Path) -> None:
    model, x = small(name)
    tokens = model.forward_features(x)
    prefix = model.num_prefix_tokens
    assert prefix == (0 if "cifar10" in name else 1)
    assert tokens.shape == (2, model.patch_embed.num_patches + prefix, model.num_features)
    assert torch.equal(model.forward_head(tokens), model(x))
    assert model.forward_head(tokens, pre_logits=True).shape == (2, model.head_hidden_size)

    final, intermediates = model.forward_intermediates(x)
    assert torch.equal(final, tokens)
    side = model.patch_embed.grid_size[0]
    assert [y.shape for y in intermediates] == [(2, 24, side, side)] * 3
    last = model.forward_intermediates(x, indices=1, output_fmt="NLC", intermediates_only=True, norm=True)
    assert torch.equal(last[0], tokens[:, prefix:])

    torch.save(model.state_dict(), tmp_path / "weights.pt")
    again, _ = small(name)
    assert not torch.equal(again(x), model(x))
    again.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(again(x), model(x))

    model.reset_classifier(7)
    assert model(x).shape == (2, 7)
    assert model.num_classes == 7
    model.reset_classifier(0, "avg")
    assert model(x).shape == (2, 24)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_checkpointing_changes_nothing(name: str) -> None:
    model, x = small(name)
    expected = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    model.set_grad_checkpointing()
    found = torch.autograd.grad(model(x).square().sum(), list(model.parameters()))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_weight_decay_and_groups() -> None:
    model, _ = small("astromorphic_scenes_tiny_patch8_64")
    spared = model.no_weight_decay()
    assert spared == {"pos_embed", "cls_token", *(f"blocks.{i}.attn.positions" for i in range(3))}
    assert spared <= set(dict(model.named_parameters()))
    groups = param_groups_weight_decay(model, 0.05, no_weight_decay_list=spared)
    decayed = {id(p) for group in groups if group["weight_decay"] > 0 for p in group["params"]}
    assert id(model.blocks[0].attn.positions) not in decayed
    assert id(model.blocks[0].attn.qkv.weight) in decayed
    grouped = timm.models.group_parameters(model, model.group_matcher())
    assert sorted(itertools.chain.from_iterable(grouped.values())) == sorted(dict(model.named_parameters()))
    assert len(grouped) == 5


def test_features_only() -> None:
    model = timm.create_model("astromorphic_scenes_tiny_patch8_64", features_only=True, out_indices=(0, 3))
    assert [y.shape for y in model(torch.randn(1, 3, 64, 64))] == [(1, 96, 8, 8)] * 2
    assert model.feature_info.channels() == [96, 96]
    assert model.feature_info.reduction() == [8, 8]


def test_options_reach_the_blocks() -> None:
    model, x = small(
        "astromorphic_scenes_tiny_patch8_64", nonlinearity="none", alpha=1.0, relative_position=False,
        output_projection=True, pos_embed="none", drop_path_rate=0.2, proj_drop_rate=0.1, in_chans=3,
    )  # fmt: skip
    attention = model.blocks[2].attn
    assert (attention.nonlinearity, attention.alpha, attention.positions) == ("none", 1.0, None)
    assert model.pos_embed is None
    assert model.blocks[2].drop1.p == 0.1
    assert model.blocks[2].drop_path1.drop_prob == pytest.approx(0.2)
    assert model(x).isfinite().all()
    softmax, x = small("astromorphic_scenes_tiny_patch8_64", attention="softmax")
    assert isinstance(softmax.blocks[0].attn, SoftmaxAttention)
    assert softmax(x).isfinite().all()


def test_the_size_is_fixed() -> None:
    model, _ = small("astromorphic_scenes_tiny_patch8_64")
    model.set_input_size(img_size=16)
    with pytest.raises(ValueError, match="img_size is"):
        model.set_input_size(img_size=32)
    with pytest.raises(ValueError, match="patch_size is"):
        model.set_input_size(patch_size=4)


def test_batch_equals_single_samples() -> None:
    for name in NAMES:
        model, x = small(name)
        torch.testing.assert_close(model(x), torch.cat([model(x[:1]), model(x[1:])]), rtol=1e-12, atol=1e-12)


def test_it_learns() -> None:
    # which of two patches carries the pattern, told by the class token alone
    model, _ = small("astromorphic_scenes_tiny_patch8_64", depth=2, num_classes=2)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    pattern = torch.randn(3, 4, 4, dtype=torch.float64)
    for _ in range(60):
        y = torch.randint(2, (32,))
        x = 0.3 * torch.randn(32, 3, 16, 16, dtype=torch.float64)
        x[y == 0, :, :4, :4] += pattern
        x[y == 1, :, 8:12, 8:12] += pattern
        loss = F.cross_entropy(model(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.2
