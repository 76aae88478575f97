from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from captum_astro import ViTA
from captum_astro.evaluation.vita.config import SearchConfig
from captum_astro.evaluation.vita.search import _Scorer
from captum_astro.evaluation.vita.settings import grid
from captum_astro.evaluation.vita.suffix import Suffix
from captum_astro.functional.astrocyte import Modulation
from tests.evaluation.vita.making import GRID, make_model, make_samples, model_inputs
from tests.families import build, images


@pytest.mark.parametrize(
    ("name", "layer", "cut"),
    [
        ("cls", "blocks.1.attn.proj", "layer"),
        ("cls", "blocks.1.mlp.fc1", "layer"),
        ("cls", "blocks.1.attn.qkv", "block"),
        ("map_pooling", "attn_pool.kv", "none"),
    ],
)
def test_runs_only_what_follows(name: str, layer: str, cut: str) -> None:
    model = make_model(name)
    x = model_inputs(model, make_samples(2))
    scorer = _Scorer(model, grid(layer=[layer], **GRID), SearchConfig(("TokenGradCAM",), ("dice",), rows=8))
    assert scorer._suffix((layer, "auto"), x)._cut == cut
    calls = {"first": 0, "before": 0}
    handles = [
        model.blocks[0].register_forward_hook(lambda *_: calls.__setitem__("first", calls["first"] + 1)),
        model.blocks[1].attn.qkv.register_forward_hook(
            lambda m, a, o: calls.__setitem__("before", max(calls["before"], len(a[0])))
        ),
    ]
    scorer.score(make_samples(2), 0)
    for handle in handles:
        handle.remove()
    assert calls["first"] == (2 if cut == "none" else 1)  # for the plain map, and never under a setting
    assert calls["before"] == (2 if cut == "layer" else 8)


def _run(suffix: Suffix, x: torch.Tensor, rules: list[Modulation]) -> torch.Tensor:
    """As in a search: the input is stored from a plain pass."""
    kept: list[torch.Tensor] = []
    module = suffix.enters()
    if module is not None:
        handle = module.register_forward_pre_hook(lambda m, a: kept.append(a[0]))
        suffix._model(x)
        handle.remove()
    return suffix.modulated(kept[0] if kept else None, rules)(x)


RULES = {"phi": (0.0, 0.3), "k": (4, 6), "beta": (0.3, 0.05)}


@pytest.mark.parametrize("rescale", ["length", "moments", "none"])
@pytest.mark.parametrize(
    ("name", "layer", "cuts"),
    [
        ("cls", None, ["layer", "block", "none"]),
        ("cls", "blocks.1.mlp.fc1", ["layer", "block", "none"]),
        ("cls", "blocks.1.attn.qkv", ["block", "none"]),
        ("average", "blocks.2.attn.proj", ["layer", "block", "none"]),
        ("map_pooling", "attn_pool.kv", ["none"]),
    ],
)
def test_each_modulation_equals_a_vita(name: str, layer: str | None, cuts: list[Any], rescale: Any) -> None:
    model, x = build(name), images(name)
    rules = [
        Modulation(k, 2, phi, 1.5, beta, rescale)
        for phi, k, beta in zip(RULES["phi"], RULES["k"], RULES["beta"], strict=True)
    ]
    expected = torch.cat([ViTA(model, layer=layer, **vars(rule))(x) for rule in rules])
    assert not torch.allclose(expected[:3], expected[3:])
    for cut in cuts:
        found = _run(Suffix(model, layer, cut), x, rules)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


def test_monitored_token() -> None:
    model, x = build("cls"), images("cls")
    rules = [Modulation(k=4, tau=2, phi=0.0)]
    expected = ViTA(model, layer="blocks.1.attn.proj", token="mean", k=4, tau=2, phi=0.0)(x)
    torch.testing.assert_close(_run(Suffix(model, "blocks.1.attn.proj", "layer", "mean"), x, rules), expected)
    assert not torch.allclose(_run(Suffix(model, "blocks.1.attn.proj", "layer"), x, rules), expected)


def test_entry_module() -> None:
    model = build("cls")
    assert Suffix(model, "blocks.1.mlp.fc1", "layer").enters() is model.blocks[1]
    assert Suffix(model, "blocks.1.mlp.fc1", "none").enters() is None
    assert Suffix(model, "head", "layer").enters() is None  # behind the blocks all must run
    wrapper = nn.Sequential(nn.Identity(), model)
    assert Suffix(wrapper, "blocks.1.mlp.fc1", "layer").enters() is model.blocks[1]
    assert Suffix(nn.DataParallel(model), None, "block").layer == "blocks.0.attn.proj"
    swin = timm.create_model("swin_tiny_patch4_window7_224", img_size=56, window_size=7, num_classes=5)
    inside = Suffix(swin, "layers.2.blocks.1.attn.proj", "layer").enters()
    assert inside is swin.layers[2]  # the outermost that is numbered


def test_model_is_unchanged_and_weights_are_shared() -> None:
    model, x = build("cls"), images("cls")
    plain, blocks = model(x), list(model.blocks)
    suffix = Suffix(model, "blocks.1.attn.proj", "layer")
    many = suffix.modulated(x.new_zeros(3, 17, 24), [Modulation(alpha=1, beta=1)] * 2)
    assert {id(p) for p in many.parameters()} <= {id(p) for p in model.parameters()}
    with pytest.raises(RuntimeError):
        suffix.modulated(x.new_zeros(3, 17, 5), [Modulation()])(x)
    assert list(model.blocks) == blocks
    assert torch.equal(model(x), plain)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_bad_input() -> None:
    model = build("cls")
    with pytest.raises(ValueError, match=r"no layer 'blocks\.9\.mlp\.fc1'"):
        Suffix(model, "blocks.9.mlp.fc1", "layer")
    with pytest.raises(TypeError, match=r"blocks\.0\.norm1 is a LayerNorm"):
        Suffix(model, "blocks.0.norm1", "block")
