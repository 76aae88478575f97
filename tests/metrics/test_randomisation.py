"""Models that forget, and how far their maps move."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from captum_astro import ViTA
from captum_astro.metrics.declaration import Given, Scores
from captum_astro.metrics.randomisation import randomisation
from captum_astro.metrics.registry import all_metrics
from captum_astro.models.randomised import layers, randomised_copies
from tests.families import FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cascading", [True, False])
def test_layers_from_the_output(family: str, cascading: bool) -> None:
    model = FAMILIES[family]()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    owners = {
        f"{prefix}.{key}".lstrip("."): name
        for name, modules in layers(model)
        for module in modules
        for prefix in [next(n for n, m in model.named_modules() if m is module)]
        for key, _ in module.named_parameters(recurse=False)
    }
    assert set(owners) >= {name for name, _ in model.named_parameters()}
    forgotten: set[str] = set()
    names = [name for name, _ in layers(model)]
    for name, changed in randomised_copies(model, cascading=cascading):
        assert name == names.pop()
        forgotten = forgotten | {name} if cascading else {name}
        for key, value in changed.named_parameters():
            if owners[key] not in forgotten:
                assert torch.equal(value, before[key]), key
        moved = [
            key
            for key, value in changed.named_parameters()
            if owners[key] == name and value.numel() > 1 and not torch.equal(value, before[key])
        ]
        constant = [key for key, value in before.items() if owners.get(key) == name and len(value.unique()) > 1]
        assert moved or not constant, name
        assert changed.training is model.training
    assert not names
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    "wrap", [ViTA, nn.Sequential, lambda model: nn.Sequential(nn.Identity(), nn.Sequential(model))]
)
def test_a_wrapper_has_the_layers_of_the_model(wrap: Any) -> None:
    model = FAMILIES["registers"]()
    inside = [[id(module) for module in modules] for _, modules in layers(model)]
    assert [[id(module) for module in modules] for _, modules in layers(wrap(model))] == inside
    assert len(inside) > 4


def test_the_same_seed_gives_the_same_copies() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    first, second = (
        [copy.deepcopy(changed.state_dict()) for _, changed in randomised_copies(model, cascading=True, seed=seed)]
        for seed in (1, 1)
    )
    assert all(torch.equal(a[key], b[key]) for a, b in zip(first, second, strict=True) for key in a)
    (_, other), *_ = randomised_copies(model, cascading=True, seed=2)
    assert not torch.equal(other.state_dict()["2.weight"], first[0]["2.weight"])


def test_rank_correlation_of_each_layer() -> None:
    generator = torch.Generator().manual_seed(0)
    maps, others = torch.randn(2, 5, 6, generator=generator), torch.randn(2, 3, 5, 6, generator=generator)
    found = randomisation(maps, others)
    for b in range(2):
        for layer in range(3):
            expected = spearmanr(maps[b].flatten(), others[b, layer].flatten()).statistic
            assert found[b, layer].item() == pytest.approx(expected, abs=1e-12)
    others[0, 1] = 2.0
    assert randomisation(maps, others)[0, 1].item() == 0
    with pytest.raises(ValueError, match=r"randomised: \(B, layers, H, W\)"):
        randomisation(maps, others[0])


@pytest.mark.parametrize("name", ["cascading randomisation", "layer randomisation"])
def test_the_score_is_the_mean_of_its_curve(name: str) -> None:
    maps = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))
    others = torch.stack([-maps, maps, torch.zeros_like(maps)], 1)
    found = all_metrics()[name].compute(Given(maps=maps, randomised=lambda cascading: others))
    assert isinstance(found, Scores)
    assert torch.allclose(found.curves, torch.tensor([[1.0, 1.0, 0.0]] * 2).double())
    assert torch.allclose(found.values, found.curves.mean(1))
