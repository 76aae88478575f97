"""Each change of a part, against a model that is built or weighted that way, or against its definition."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from captum_astro.functional.astromorphic_features import feature_map
from captum_astro.models.astromorphic_text import AstromorphicLanguageModel, AstromorphicTextClassifier
from captum_astro.training.interventions import attentions, changed, changes
from captum_astro.training.recorded import norms, recorded

IDS = torch.tensor([[5, 7, 2, 9, 3, 4], [8, 1, 6, 0, 0, 0]])
KINDS = [AstromorphicTextClassifier, AstromorphicLanguageModel]
SIGMA = ["inside", "outside", "none"]


def small(kind: type[nn.Module], seed: int = 0, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    own = {"num_classes": 3} if kind is AstromorphicTextClassifier else {}
    model = kind(vocabulary=10, dim=8, num_heads=2, depth=2, length=7, dtype=torch.float64, **own, **options).eval()
    for layer in attentions(model).values():
        nn.init.normal_(layer.qkv.weight)
    return model


@torch.no_grad()
def with_change(model: nn.Module, part: str, set_to: str, ids: torch.Tensor = IDS) -> torch.Tensor:
    means, _ = recorded(model, lambda: model(ids))
    before = model(ids)
    with changed(model, changes(model)[part, set_to], means):
        found = model(ids)
    assert not torch.allclose(found, before)
    assert torch.equal(model(ids), before)  # the hooks are gone
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sigma", SIGMA)
def test_no_astrocytes_is_the_model_without_them(kind: type[nn.Module], sigma: str) -> None:
    model = small(kind, nonlinearity=sigma)
    without = small(kind, nonlinearity=sigma, relative_position=False)
    missing = without.load_state_dict(model.state_dict(), strict=False)
    assert not missing.missing_keys
    torch.testing.assert_close(with_change(model, "H_astro", "zero"), without(IDS), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("set_to", ["zero", "mean"])
def test_other_positions_are_those_of_another_memory(kind: type[nn.Module], set_to: str) -> None:
    model, other = small(kind), small(kind)
    for layer in attentions(other).values():
        with torch.no_grad():
            layer.positions.copy_(0 if set_to == "zero" else layer.positions.mean(-1, keepdim=True))
    torch.testing.assert_close(with_change(model, "M", set_to), other(IDS), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_no_attention_is_one_that_returns_nothing(kind: type[nn.Module]) -> None:
    model, other = small(kind), small(kind)
    for layer in attentions(other).values():
        layer.register_forward_hook(lambda layer, given, output: 0 * output)
    torch.testing.assert_close(with_change(model, "attention", "zero"), other(IDS), rtol=1e-12, atol=1e-12)


def test_the_mean_read_out_is_that_of_the_tokens_that_are_no_padding() -> None:
    model = small(AstromorphicTextClassifier)
    outputs: list[torch.Tensor] = []
    first = next(iter(attentions(model).values()))
    with_change(model, "attention", "mean")
    handle = first.register_forward_hook(lambda layer, given, output: outputs.append(output))
    means, _ = recorded(model, lambda: model(IDS))
    with changed(model, changes(model)["attention", "mean"], means):
        seen: list[torch.Tensor] = []
        other = first.register_forward_hook(lambda layer, given, output: seen.append(output))
        model(IDS)
    handle.remove(), other.remove()
    for text, length in enumerate((6, 3)):
        expected = outputs[-1][text, :length].mean(0).expand(6, -1)
        torch.testing.assert_close(seen[0][text], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sigma", SIGMA)
@pytest.mark.parametrize("part", ["H_neuron zero", "H_neuron mean", "H_astro mean", "W_astro mean"])
@pytest.mark.parametrize("causal", [False, True])
def test_the_other_changes_by_their_equations(sigma: str, part: str, causal: bool) -> None:
    """One layer, token by token."""
    model = small(AstromorphicLanguageModel if causal else AstromorphicTextClassifier, nonlinearity=sigma)
    layer: Any = next(iter(attentions(model).values()))
    ids = torch.tensor([[5, 7, 2, 9], [8, 1, 6, 3]])
    given: list[torch.Tensor] = []
    found: list[torch.Tensor] = []
    means, _ = recorded(model, lambda: model(ids))
    with changed(model, changes(model)[tuple(part.split())], means):
        layer.register_forward_hook(lambda layer, x, output: (given.append(x[0]), found.append(output))[1])
        model(ids)
    query, key, value = layer.split_heads(given[0])
    keys, written, read = layer.position_keys(7), feature_map(key), feature_map(query)
    if part == "W_astro mean":
        keys = keys.mean(1, keepdim=True).expand(-1, 7, -1)
    for head in range(2):
        for place in range(4):
            seen = slice(place + 1 if causal else 4)
            neuron = [written[b, head, seen].T @ value[b, head, seen] for b in range(2)]
            astro = [keys[head, : len(value[b, head, seen])].T @ value[b, head, seen] for b in range(2)]
            if part == "H_neuron zero":
                neuron = [0 * x for x in neuron]
            elif part == "H_neuron mean":
                neuron = [sum(neuron) / 2] * 2
            elif part == "H_astro mean":
                astro = [sum(astro) / 2] * 2
            for b in range(2):
                h = neuron[b] + astro[b]
                h = {"inside": torch.sigmoid(h / 4), "outside": torch.sigmoid(h) / 4, "none": h / 4}[sigma]
                calcium = written[b, head, seen].sum(0) ** 0.25
                expected = read[b, head, place] @ h / (read[b, head, place] @ calcium)
                ours = found[0][b, place, 4 * head : 4 * head + 4]
                torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({}, {"attention", "H_neuron", "H_astro", "W_astro", "M"}),
        ({"relative_position": False}, {"attention", "H_neuron"}),
        ({"attention": "softmax"}, {"attention"}),
    ],
)
def test_a_model_has_the_parts_that_it_was_built_with(kind, options: dict[str, Any], parts: set[str]) -> None:
    model = small(kind, **options)
    assert {part for part, _ in changes(model)} == parts
    for part, set_to in changes(model):
        assert with_change(model, part, set_to).isfinite().all()
    rows = norms(model, lambda model, batch: (model(batch[0]).square().mean(), torch.zeros(())), (IDS,))
    assert {row["part"] for row in rows} == parts | {"input"}
    means, figures = recorded(model, lambda: model(IDS))
    assert set(means) == set(figures) == (set() if "attention" in options else {"blocks.0", "blocks.1"})


def test_a_model_without_astromorphic_blocks_has_no_parts() -> None:
    with pytest.raises(ValueError, match="Linear has no astromorphic blocks, so there are no parts to compare"):
        changes(nn.Linear(2, 2))


def test_what_is_recorded_is_over_all_samples() -> None:
    model = small(AstromorphicLanguageModel, nonlinearity="none")
    whole, figures = recorded(model, lambda: model(IDS))
    means, _ = recorded(model, lambda: (model(IDS[:1]), model(IDS[1:, :3]), model(IDS[1:])))
    for name in ("blocks.0", "blocks.1"):
        one, two = recorded(model, lambda: model(IDS[:1]))[0][name], recorded(model, lambda: model(IDS[1:]))[0][name]
        torch.testing.assert_close(whole[name].neuron, (one.neuron + two.neuron) / 2, rtol=1e-12, atol=1e-12)
        # the second text was seen twice up to its third token
        expected = torch.cat([(one.astro + 2 * two.astro)[:, :3] / 3, (one.astro + two.astro)[:, 3:] / 2], 1)
        torch.testing.assert_close(means[name].astro, expected, rtol=1e-12, atol=1e-12)
        assert math.isnan(figures[name]["saturated"])
        assert figures[name]["ratio"] == pytest.approx(figures[name]["H_neuron"] / figures[name]["H_astro"])


def test_the_figures_of_a_known_memory() -> None:
    """One token of value 1 under keys phi(0) = 1 for both parts: H_neuron = H_astro = 1 / s."""
    model = AstromorphicTextClassifier(3, 2, dim=2, num_heads=1, length=1, scale=0.25, qkv_bias=True).eval()
    layer: Any = model.blocks[0].attn
    with torch.no_grad():
        layer.positions.zero_(), layer.qkv.weight.zero_()
        layer.qkv.bias.copy_(torch.tensor([0.0, 0, 0, 0, 1, 0.5]))
    _, found = recorded(model, lambda: model(torch.tensor([[1]])))
    size = (8 + 2) ** 0.5  # of 4 and 2
    assert found["blocks.0"] == pytest.approx(
        {"saturated": 0.5, "H_neuron": size, "H_astro": size, "ratio": 1.0}  # of sums 8 and 4
    )


def test_norms_are_those_of_autograd() -> None:
    model = small(AstromorphicTextClassifier)
    rows = norms(model, lambda model, batch: (model(batch[0]).square().sum(), torch.zeros(())), (IDS,))
    found = {(row["layer"], row["part"]): row for row in rows}
    model(IDS).square().sum().backward()
    for name, layer in attentions(model).items():
        assert found[name, "M"]["gradient"] == pytest.approx(float(layer.positions.grad.norm()), rel=1e-10)
        assert found[name, "M"]["rms"] == pytest.approx(layer.positions.square().mean().sqrt().item(), rel=1e-12)
        assert found[name, "H_neuron"]["gradient"] == found[name, "H_astro"]["gradient"] > 0
        assert found[name, "attention"]["gradient"] > 0
    embedded = (model.embed(IDS) + model.pos_embed[:, :6]).square().mean().sqrt().detach()
    assert found["blocks.0", "input"]["rms"] == pytest.approx(float(embedded), rel=1e-12)
