"""Layers whose weight is computed: every method explains what the plain layer with that weight gives."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from captum_astro import LRP, UnsupportedModelError, ViTA, explainers
from captum_astro.capture.replica import Replica
from tests.families import build, images

METHODS = [e.method for e in explainers()]
# by tokens, BeyondIntuition is not defined for a modulated output projection
MODULATED = [e.method for e in explainers() if e.name != "BeyondIntuition" and not e.name.startswith("ViTA")]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)


class LoRALinear(nn.Module):
    """As LoRA libraries write it: the layer, and a low-rank product beside it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.Linear(base.in_features, 2, bias=False).to(base.weight)
        self.lora_B = nn.Linear(2, base.out_features, bias=False).to(base.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + 2 * self.lora_B(self.lora_A(x))


def _weight_norm_hook(linear: nn.Linear) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(linear)


COMPUTED: dict[str, Callable[[nn.Linear], nn.Module]] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "weight_norm_hook": _weight_norm_hook,
    "spectral_norm_hook": nn.utils.spectral_norm,
    "lora": LoRALinear,
}


def _pair(kind: str, path: str) -> tuple[nn.Module, nn.Module]:
    """A model with a computed layer, and the same model with a plain one."""
    model = build("cls")
    plain = copy.deepcopy(model)
    parent, name = path.rsplit(".", 1)
    linear = model.get_submodule(path)
    layer = COMPUTED[kind](linear).eval()
    setattr(model.get_submodule(parent), name, layer)
    with torch.no_grad():
        for part in (p for n, p in layer.named_parameters() if n.endswith(("original0", "weight_g"))):
            part.mul_(1.5)  # away from the weight that it began with
        zero = torch.zeros(1, linear.in_features, dtype=torch.float64)
        columns = layer(torch.eye(linear.in_features, dtype=torch.float64))
        plain.get_submodule(path).weight.copy_((columns - layer(zero)).T)
    return model, plain


@every_method
@pytest.mark.parametrize("kind", COMPUTED)
@pytest.mark.one_in(3)
def test_every_method_follows_a_computed_weight(method: Any, kind: str) -> None:
    (model, plain), x = _pair(kind, "blocks.1.attn.proj"), images("cls", 1)
    before = [(id(p), p.detach().clone()) for p in model.parameters()]
    given: dict[str, Any] = {"target": 1, "attribute_to": "tokens"}
    expected = method(plain).attribute(x, **given)
    torch.testing.assert_close(method(model).attribute(x, **given), expected, rtol=1e-6, atol=1e-9)
    assert [id(p) for p in model.parameters()] == [number for number, _ in before]
    assert all(torch.equal(p, old) for p, (_, old) in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("method", MODULATED, ids=lambda m: m.__name__)
@pytest.mark.parametrize("kind", [kind for kind in COMPUTED if kind != "lora"])
@pytest.mark.parametrize("path", ["blocks.0.attn.proj", "blocks.1.attn.qkv", "blocks.1.mlp.fc1"])
@pytest.mark.one_in(6)
def test_astrocytes_on_a_computed_weight(method: Any, kind: str, path: str) -> None:
    (model, plain), x = _pair(kind, path), images("cls", 1)
    given: dict[str, Any] = {"target": 1, "attribute_to": "tokens"}
    layer = None if path == "blocks.0.attn.proj" else path
    assert ViTA(model, layer=layer).layer == path
    expected = method(ViTA(plain, layer=layer)).attribute(x, **given)
    torch.testing.assert_close(method(ViTA(model, layer=layer)).attribute(x, **given), expected, rtol=1e-6, atol=1e-9)
    with ViTA(model, layer=layer):
        inside = method(model).attribute(x, **given)
    torch.testing.assert_close(inside, expected, rtol=1e-6, atol=1e-9)


def test_astrocytes_on_an_adapter_are_refused() -> None:
    model, _ = _pair("lora", "blocks.0.attn.proj")
    with pytest.raises(TypeError, match=r"blocks\.0\.attn\.proj is a LoRALinear.*merge_and_unload\(\)"):
        ViTA(model)


class LoRAConv(nn.Module):
    def __init__(self, base: nn.Conv2d) -> None:
        super().__init__()
        self.base_layer, self.lora_A = base, copy.deepcopy(base)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.lora_A(x)


class Gated(LoRALinear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + F.relu(self.lora_B(self.lora_A(x)))


class AllButTheFirst(LoRALinear):
    """An adapter that leaves the class token alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.base_layer(x[:, :1]), super().forward(x[:, 1:])], 1)


class SlightlyCurved(LoRALinear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 1e-3 * torch.sin(x.sum(-1, keepdim=True))


@pytest.mark.parametrize(
    ("path", "adapter"),
    [("patch_embed.proj", LoRAConv), *(("blocks.1.mlp.fc1", kind) for kind in (Gated, AllButTheFirst, SlightlyCurved))],
)
def test_relevance_refuses_an_adapter_that_is_not_linear(path: str, adapter: Any) -> None:
    model, x = build("cls"), images("cls", 1)
    parent, name = path.rsplit(".", 1)
    setattr(model.get_submodule(parent), name, adapter(model.get_submodule(path)))
    torch.testing.assert_close(Replica(model).model(x), model(x))
    with pytest.raises(UnsupportedModelError, match=r"Merge it: merge_and_unload\(\) in peft"):
        LRP(model).attribute(x, target=1)


def test_a_wrapper_that_answers_for_a_computed_layer() -> None:
    class Answers(nn.Sequential):
        def __getattr__(self, name: str) -> Any:
            return self._modules["0"].parametrizations if name == "parametrizations" else super().__getattr__(name)

    model, x = Answers(parametrizations.weight_norm(nn.Linear(3, 2))), torch.rand(1, 3)
    torch.testing.assert_close(Replica(model).model(x), model(x))
