from __future__ import annotations

from types import SimpleNamespace

import timm
import torch
import torch.nn.functional as F
from torch import nn

from captum_astro import TokenGradCAM
from captum_astro.capture.call import Call
from captum_astro.capture.probe import SAMPLES, probe
from captum_astro.capture.target import Target
from captum_astro.functional.places import Places, find_places
from captum_astro.layouts.steps import Tap


class Shared(nn.Module):
    """A convolution under two names, a dictionary that is filled from a weight, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Dropout(0.5), nn.Linear(3, 2)
        self.again, self.cache = self.first, dict[str, torch.Tensor]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if "bias" not in self.cache:
            self.cache["bias"] = 2 * self.head.bias
        return self.head(self.drop(self.again(self.first(x))).mean((2, 3))) + self.cache["bias"]


def test_leaves_the_model_as_it_was() -> None:
    model, x = Shared().eval(), torch.rand(2, 3, 8, 8)
    model.drop.train()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    shapes = []
    probe(Call(model, x, Target(1)), model, [Tap(model.drop, "output")], lambda tap, y: shapes.append(y.shape))
    assert shapes == [(SAMPLES, 3, 8, 8)]
    assert model.cache == {}
    assert model.drop.training
    assert not model.training
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert model.first.weight.dtype == torch.float32
    model(x)


def test_cached_biases_are_those_of_the_model() -> None:
    model = timm.create_model("levit_128s", num_classes=2).eval()
    x = torch.rand(1, 3, 224, 224)
    probe(Call(model, x, Target(1)), model, [], lambda tap, y: None)
    got = model(x)
    assert torch.equal(got, model.train().eval()(x))  # train() empties the cache


def test_the_images_reach_a_model_inside_a_wrapper() -> None:
    inside = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.Flatten(), nn.Linear(32, 2))
    model = nn.Sequential(nn.Upsample(scale_factor=2), inside)
    seen: list[Places | None] = []
    call = Call(model, torch.zeros(1, 3, 2, 4), Target(1))
    probe(call, inside, [Tap(inside[0], "output")], lambda tap, y: seen.append(find_places(y)))
    assert seen == [Places(1, (2, 4), None)]


class Caches(nn.Module):
    """A model without a layout that keeps a product of its weights in an object, or computes it each time."""

    def __init__(self, keeps: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm, self.head = nn.Conv2d(3, 4, 4, 4), nn.BatchNorm2d(4), nn.Linear(4, 2)
        self.kept = SimpleNamespace(cache={}) if keeps else None
        self.feature_info = [{"module": "none"}]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        cache = {} if self.kept is None else self.kept.cache
        gain = cache.setdefault("gain", self.head.weight[0, :, None, None] * 2)
        return self.head(self.norm(self.stem(x) * gain).relu().mean((2, 3)))


def test_what_a_model_keeps_of_the_probe_is_forgotten() -> None:
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    expected, found = (TokenGradCAM(Caches(keeps).eval()).attribute(x, target=1) for keeps in (False, True))
    assert expected.any()
    torch.testing.assert_close(found, expected)


class CallsAttention(nn.Module):
    """A user's model that calls PyTorch's attention as a function, without its module."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.into, self.out = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 48), nn.Linear(16, 16)
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patch(x).flatten(2).permute(2, 0, 1)
        mixed = F.multi_head_attention_forward(
            tokens, tokens, tokens, 16, 2, self.into.weight, self.into.bias, None, None, False, 0.0, self.out.weight,
            self.out.bias, training=self.training, need_weights=False,
        )[0]  # fmt: skip
        return self.head(self.norm((tokens + mixed).transpose(0, 1)).mean(1))


def test_a_model_that_calls_attention_as_a_function_is_explained() -> None:
    torch.manual_seed(0)
    model, x, seen = CallsAttention().double().eval(), torch.rand(2, 3, 32, 16, dtype=torch.float64), []
    found = TokenGradCAM(model, model.norm).attribute(x, target=1, attribute_to="grid", relu_attributions=False)
    model.norm.register_forward_hook(lambda _, given, output: seen.append(output))
    out = model(x)
    (gradient,) = torch.autograd.grad(out[:, 1].sum(), seen[0])
    expected = (gradient.mean(1, keepdim=True) * seen[0]).sum(-1).reshape(2, 1, 8, 4)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=1e-15)
