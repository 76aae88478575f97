from __future__ import annotations

import torch
from captum.attr import IntegratedGradients

from captum_astro import VTranM
from captum_astro.evaluation.run.maps import Maps
from captum_astro.evaluation.specification.methods import methods_of
from captum_astro.models.loading import load_model
from tests.evaluation import making


def test_options_reach_the_method() -> None:
    torch.manual_seed(0)
    model, x = load_model(making.NAME, pretrained=False), torch.randn(2, 3, 32, 32)
    words = "VTranM:output=logit:components=length:gain=0.5:layers=0+1,ViTAGradCAM:k=4:tau=2,TokenGradCAM"
    logit, vita, _ = (Maps(method, model, 0)(x, [1, 2], [0, 1], 8) for method in methods_of(words))
    keywords = {"output": "logit", "components": ("length",), "gain": 0.5, "layers": (0, 1)}
    assert torch.equal(logit, VTranM(model).attribute(x, target=[1, 2], attribute_to="pixels", **keywords)[:, 0])
    assert vita.shape == (2, 32, 32)
    assert methods_of("vitagradcam:k=4:tau=2")[0].building == {"k": 4, "tau": 2}


def test_random_maps_depend_on_seed_and_sample() -> None:
    [method] = methods_of("Random")
    x = torch.zeros(3, 3, 32, 32)
    first = Maps(method, torch.nn.Identity(), 0)(x, [0] * 3, [4, 5, 6], 8)
    assert torch.equal(Maps(method, torch.nn.Identity(), 0)(x[:1], [7], [5], 1)[0], first[1])
    assert not torch.equal(Maps(method, torch.nn.Identity(), 1)(x[:1], [7], [5], 1)[0], first[1])
    assert not torch.equal(first[0], first[1])


def test_random_numbers_are_independent_per_method(monkeypatch) -> None:
    """A random method is independent of earlier random draws and does not affect later ones."""
    model = load_model(making.NAME, pretrained=False)

    def noise(self, inputs, **keywords):
        return torch.rand(len(inputs), 1, *inputs.shape[-2:])

    monkeypatch.setattr(VTranM, "attribute", noise)
    [method] = methods_of("VTranM")
    maps, x = Maps(method, model, 0), torch.zeros(1, 3, 32, 32)
    torch.manual_seed(1)
    first, after = maps(x, [0], [3], 1), torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    assert torch.equal(maps(x, [0], [3], 1), first)
    assert not torch.equal(maps(x, [0], [4], 1), first)


def test_integrated_gradients_of_captum() -> None:
    torch.manual_seed(0)
    model, x = load_model(making.NAME, pretrained=False), torch.randn(2, 3, 32, 32)
    [method] = methods_of("integratedgradients")
    assert method.of_class
    found = Maps(method, model, 0)(x, [1, 2], [0, 1], 8)
    expected = IntegratedGradients(model).attribute(x, target=torch.tensor([1, 2]), n_steps=32).abs().sum(1)
    torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-7)
    assert method.name not in [each.name for each in methods_of("all")]
