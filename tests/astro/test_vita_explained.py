from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import timm
import torch
from captum.attr import IntegratedGradients, NoiseTunnel, Saliency
from torch import nn

from captum_astro import (
    LRP,
    TokenGradCAM,
    ViTA,
    ViTAGradCAM,
    VTranM,
    explainers,
)
from tests.astro.making import MILD
from tests.families import build, images


@pytest.mark.parametrize("method", [VTranM, LRP, TokenGradCAM], ids=lambda m: m.__name__)
def test_a_copy_made_inside_is_the_modulated_model(method: Any) -> None:
    model, x = build("cls"), images("cls")
    vita = ViTA(model, **MILD)
    expected = method(vita).attribute(x, target=1)
    with vita:
        inside = copy.deepcopy(model)
        torch.testing.assert_close(method(inside).attribute(x, target=1), expected)
    torch.testing.assert_close(method(inside).attribute(x, target=1), expected)
    seen: list[torch.Tensor] = []
    thread = threading.Thread(target=lambda: seen.append(inside(x)))
    thread.start()
    thread.join()
    assert torch.equal(seen[0], vita(x))


@pytest.mark.parametrize(
    "method", [e.method for e in explainers() if e.name != "BeyondIntuition"], ids=lambda m: m.__name__
)
@pytest.mark.parametrize("layer", ["blocks.0.attn.proj", "blocks.0.attn.qkv", "blocks.1.mlp.fc1"])
@pytest.mark.one_in(2)
def test_every_method_explains_it(method: Any, layer: str) -> None:
    model, x = build("cls"), images("cls")
    vita = ViTA(model, **MILD, layer=layer)
    inner = {"modulated_layer": "blocks.2.mlp.fc2"} if method.__name__.startswith("ViTA") else {}
    plain = method(model, **inner).attribute(x, target=1)
    changed = method(vita, **inner).attribute(x, target=1)
    assert changed.shape == x.shape
    assert not torch.allclose(plain, changed)
    with vita:
        torch.testing.assert_close(method(model, **inner).attribute(x, target=1), changed)
    torch.testing.assert_close(method(model, **inner).attribute(x, target=1), plain)
    torch.testing.assert_close(method(nn.Sequential(nn.Identity(), vita), **inner).attribute(x, target=1), changed)


def test_methods_of_captum_explain_it() -> None:
    model, x = build("cls"), images("cls")
    vita = ViTA(model, **MILD)
    leaf = x.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(vita(leaf)[:, 1].sum(), leaf)
    torch.testing.assert_close(Saliency(vita).attribute(x, target=1), gradient.abs())
    assert IntegratedGradients(vita).attribute(x, target=1, n_steps=4).shape == x.shape
    noisy = NoiseTunnel(VTranM(vita)).attribute(x, target=1, nt_samples=2, stdevs=0.0)
    torch.testing.assert_close(noisy, VTranM(vita).attribute(x, target=1))


def test_quantus_takes_it() -> None:
    import numpy as np
    import quantus

    model, x = build("cls", torch.float32).eval(), images("cls", dtype=torch.float32)
    vita = ViTA(model)
    assert not vita.training

    def explain(model: nn.Module, inputs: Any, targets: Any, **kwargs: Any) -> Any:
        target = torch.as_tensor(targets).long()
        return VTranM(model).attribute(torch.as_tensor(inputs), target=target, attribute_to="pixels").numpy()

    metric = quantus.MPRT(return_last_correlation=True, disable_warnings=True, display_progressbar=False)
    scores = metric(vita, x.numpy(), np.array([0, 1, 2]), explain_func=explain, explain_func_kwargs={})
    assert len(scores) == 3


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("swin_tiny_patch4_window7_224", "layers.0.blocks.0.attn.proj"),
        ("vit_small_patch14_dinov2", "blocks.0.attn.proj"),
        ("swin_tiny_patch4_window7_224", "layers.1.blocks.1.mlp.fc1"),
    ],
)
def test_swin_and_dinov2(name: str, layer: str) -> None:
    torch.manual_seed(0)
    size = 224 if name.startswith("swin") else 70
    options = {} if name.startswith("swin") else {"img_size": size}
    model = timm.create_model(name, num_classes=7, **options).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    x = torch.randn(2, 3, size, size)
    vita = ViTA(model, layer=layer, phi=0.0)
    alone = torch.cat([vita(x[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(vita(x), alone, rtol=1e-3, atol=1e-4)
    assert not torch.equal(vita(x), model(x))
    assert ViTAGradCAM(model, modulated_layer=layer).attribute(x).shape == x.shape


def test_grad_cam_explains_the_plain_models_prediction() -> None:
    model, x = build("cls"), images("cls")
    top = model(x).argmax(1)
    assert not torch.equal(ViTA(model)(x).argmax(1), top)
    explain = ViTAGradCAM(model).attribute
    torch.testing.assert_close(explain(x), explain(x, target=top))
    torch.testing.assert_close(explain(x), TokenGradCAM(ViTA(model)).attribute(x, target=top))
    torch.testing.assert_close(explain(x, internal_batch_size=2), explain(x))
    named = ViTAGradCAM(model, "blocks.1.norm1", modulated_layer=model.blocks[1].mlp.fc1, k=4, tau=2)
    expected = TokenGradCAM(ViTA(model, k=4, tau=2, layer="blocks.1.mlp.fc1"), model.blocks[1].norm1)
    torch.testing.assert_close(named.attribute(x, target=2), expected.attribute(x, target=2))
    assert "cls" in repr(named.vita)
