from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from captum_astro import (
    LRP,
    AttnLRP,
    ConservativeLRP,
    UnsupportedModelError,
    ViTA,
    VTranM,
    check,
)
from captum_astro.astro import AstrocyticLinear, Modulation
from captum_astro.astro.layout import with_modulated
from captum_astro.capture.call import Call
from captum_astro.capture.target import Target
from captum_astro.functional.astrocyte import modulation_factors
from captum_astro.layouts.base import Layout, layout_for
from captum_astro.layouts.steps import Linear, Modulated
from captum_astro.layouts.structure import AttentionBranch
from tests.astro.making import MILD
from tests.families import FAMILIES, build, images

# the fused qkv of BEiT and EVA is read without being called, out_proj serves two branches, rel_pos knows no image
UNUSABLE = ("rel_pos", "out_proj")


def _layers(name: str, model: nn.Module) -> list[str]:
    return [
        path
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and path.startswith("blocks.0.")
        and not any(part in path for part in UNUSABLE)
        and not (path.endswith("qkv") and type(model).__name__ in ("Beit", "Eva"))
    ]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("rescale", ["length", "moments", "none"])
@pytest.mark.one_in(3)
def test_every_layer_of_every_family_passes_the_identity_check(name: str, rescale: Any) -> None:
    model, x = build(name), images(name)
    assert _layers(name, model)
    for layer in _layers(name, model):
        vita = ViTA(model, **MILD, layer=layer, rescale=rescale)
        assert not torch.equal(vita(x), model(x))
        report = check(vita, x)
        assert report.ok
        assert max(stage.error for stage in report.stages) <= 1e-10


def test_propagation_conserves_through_the_rescaling() -> None:
    for rescale in ("length", "moments", "none"):
        vita = ViTA(build("cls"), **MILD, rescale=rescale)
        tokens = LRP(vita).attribute(images("cls"), target=1, attribute_to="tokens")
        torch.testing.assert_close(tokens.sum(1), torch.ones(3, dtype=torch.float64), rtol=1e-8, atol=0)


def test_gradient_rules_hold_the_rescaling_constant() -> None:
    """With factors and scale frozen, the layer is linear: the same as a model whose layer has them as weights."""
    model, x = build("cls").requires_grad_(False), images("cls", 1)
    seen: list[torch.Tensor] = []
    handle = model.blocks[0].attn.proj.register_forward_hook(lambda m, a, o: seen.extend([a[0], o]))
    model(x)
    handle.remove()
    factors = modulation_factors(seen[0][:, 0], Modulation(**MILD))

    class Frozen(nn.Module):
        def __init__(self, linear: nn.Linear) -> None:
            super().__init__()
            self.linear = linear
            changed = linear(seen[0] * factors[:, None])
            self.scale = (seen[1].norm(dim=-1) / changed.norm(dim=-1)).detach()

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.linear(tokens * factors[:, None]) * self.scale[..., None]

    frozen = copy.deepcopy(model)
    frozen.blocks[0].attn.proj = Frozen(model.blocks[0].attn.proj)
    vita = ViTA(model, **MILD)
    for mode in (AttnLRP, ConservativeLRP):
        leaf = x.clone().requires_grad_(True)
        with mode(model)._mode(Call(frozen, leaf, Target(1))):
            score = frozen(leaf)[0, 1]
        (expected,) = torch.autograd.grad(score, leaf)
        torch.testing.assert_close(mode(vita).attribute(x, target=1), expected * x, rtol=1e-9, atol=1e-12)


def test_layer_shared_by_two_branches_is_rejected_when_attention_is_read() -> None:
    vita, x = ViTA(build("parallel_fused_out"), layer="blocks.0.out_proj"), images("cls")
    assert torch.isfinite(vita(x)).all()
    with pytest.raises(UnsupportedModelError, match="together with another branch"):
        VTranM(vita).attribute(x, target=1)


def _attention(layout: Layout, stage: int) -> AttentionBranch:
    (branch,) = (b for b in layout.stages[stage].branches if isinstance(b, AttentionBranch))
    return branch


def test_only_the_layer_is_replaced() -> None:
    model = build("cls")
    plain = layout_for(model)
    found = with_modulated(plain, ViTA(model, layer="blocks.1.attn.proj").step)
    (step,) = _attention(found, 2).steps
    assert isinstance(step, Modulated)
    assert step.module is model.blocks[1].attn.proj
    assert _attention(found, 2).modulated_values is None
    for layout, stages in ((plain, (0, 2, 4)), (found, (0, 4))):  # the plain layout stays as it was
        for stage in stages:
            assert all(isinstance(step, Linear) for step in _attention(layout, stage).steps)
    assert found.stages[2].stream is plain.stages[2].stream
    assert found.stages[1].branches == plain.stages[1].branches


def test_a_value_projection() -> None:
    model = build("cls")
    branch = _attention(with_modulated(layout_for(model), ViTA(model, layer="blocks.1.attn.qkv").step), 2)
    assert branch.modulated_values is not None
    assert branch.modulated_values.module is model.blocks[1].attn.qkv
    assert not any(isinstance(step, Modulated) for step in branch.steps)


def test_modulated_feed_forward_layer_keeps_the_layout() -> None:
    model = build("cls")
    found = with_modulated(layout_for(model), ViTA(model, layer="blocks.1.mlp.fc1").step)
    branches = [_attention(found, stage) for stage in (0, 2, 4)]
    assert all(branch.modulated_values is None for branch in branches)
    assert not any(isinstance(step, Modulated) for branch in branches for step in branch.steps)


@pytest.mark.parametrize(("layer", "values"), [("attn_pool.kv", True), ("attn_pool.proj", False)])
def test_a_pooling_head(layer: str, values: bool) -> None:
    model = build("map_pooling")
    vita = ViTA(model, **MILD, layer=layer)
    found = with_modulated(layout_for(model), vita.step)
    assert found.pooling is not None
    assert (found.pooling.branch.modulated_values is not None) == values
    assert any(isinstance(step, Modulated) for step in found.pooling.branch.steps) != values
    assert check(vita, images("map_pooling")).ok


@pytest.mark.parametrize("rescale", ["length", "moments", "none"])
def test_measured_step_reconstructs_the_layer(rescale: Any) -> None:
    model, x = build("cls"), torch.randn(2, 5, 24, dtype=torch.float64)
    vita = ViTA(model, **MILD, rescale=rescale)
    (step,) = _attention(with_modulated(layout_for(model), vita.step), 0).steps
    assert isinstance(step, Modulated)
    found, proj = step.measure(x), model.blocks[0].attn.proj
    rebuilt = proj(x * found.factors[:, None]) * found.scale[..., None]
    if found.shift is not None:
        rebuilt = rebuilt + found.shift[..., None]
    torch.testing.assert_close(rebuilt, AstrocyticLinear(proj, vita.modulation)(x), rtol=1e-12, atol=1e-12)
