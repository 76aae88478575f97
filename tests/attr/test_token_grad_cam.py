from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from captum_astro import TokenGradCAM, TokenGradCAMPlusPlus
from tests.families import FAMILIES, build, images


def _loops(activation: torch.Tensor, gradient: torch.Tensor, plus: bool) -> torch.Tensor:
    """The published equations over channels and positions ``(p, c)``."""
    positions, channels = activation.shape
    cam = torch.zeros(positions, dtype=torch.float64)
    for c in range(channels):
        weight = 0.0
        for p in range(positions):
            g = float(gradient[p, c])
            if not plus:
                weight += g / positions
            elif g != 0:
                weight += max(g, 0.0) * g**2 / (2 * g**2 + float(activation[:, c].sum()) * g**3 + 1e-6)
        cam += weight * activation[:, c]
    return cam


def _entering(block: Any, kept: list[torch.Tensor]) -> Any:
    """The input of a block's attention: the norm's output, or the stream if no single norm precedes it."""
    norm = getattr(block, "in_norm", None) or getattr(block, "norm1", None)
    if norm is None or any(word in type(block).__name__ for word in ("Post", "Astromorphic")):
        return block.register_forward_pre_hook(lambda m, a: kept.append(a[0]))
    return norm.register_forward_hook(lambda m, a, o: kept.append(o))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("plus", [False, True])
def test_agrees_with_the_loops(name: str, plus: bool) -> None:
    model, x = build(name), images(name, 1)
    kept: list[torch.Tensor] = []
    handle = _entering(model.blocks[-1], kept)
    (gradient,) = torch.autograd.grad(model(x)[0, 3], kept)
    handle.remove()
    prefix = model.num_prefix_tokens
    expected = _loops(kept[0][0, prefix:].detach(), gradient[0, prefix:], plus)
    method = TokenGradCAMPlusPlus if plus else TokenGradCAM
    got = method(model).attribute(x, target=3, attribute_to="tokens", relu_attributions=False)[0]
    assert (got[prefix:] - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert (got[:prefix] == 0).all()
    assert torch.equal(method(model).attribute(x, target=3, attribute_to="tokens")[0], got.clamp(min=0))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_patch16_224", "vit_small_patch16_224"])
def test_against_pytorch_grad_cam(name: str) -> None:
    import pytorch_grad_cam as cams
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    x = torch.randn(2, 3, 224, 224)

    def grid(tensor: torch.Tensor) -> torch.Tensor:
        return tensor[:, 1:].reshape(len(tensor), 14, 14, -1).permute(0, 3, 1, 2)

    for theirs, ours in ((cams.GradCAM, TokenGradCAM), (cams.GradCAMPlusPlus, TokenGradCAMPlusPlus)):
        with theirs(model=model, target_layers=[model.blocks[-1].norm1], reshape_transform=grid) as cam:
            expected = torch.from_numpy(cam(input_tensor=x, targets=[ClassifierOutputTarget(c) for c in (3, 5)]))
        got = ours(model).attribute(x, target=[3, 5], attribute_to="pixels")[:, 0]
        low, high = got.amin((1, 2), keepdim=True), got.amax((1, 2), keepdim=True)
        torch.testing.assert_close((got - low) / (high - low), expected, atol=2e-3, rtol=0)
