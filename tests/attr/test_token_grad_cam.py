from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

from captum_astro import TokenGradCAM, TokenGradCAMPlusPlus, UnsupportedModelError
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
    """What the attention of a block reads: the norm's output, or the stream where no single norm stands before it."""
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


@pytest.mark.parametrize("name", FAMILIES)
def test_the_default_layer_has_a_gradient(name: str) -> None:
    maps = TokenGradCAM(build(name)).attribute(images(name), target=1, relu_attributions=False)
    assert (maps.flatten(1).abs().amax(1) > 0).all()


def test_layers_by_module_or_path() -> None:
    model, x = build("cls"), images("cls")
    named = TokenGradCAM(model, "blocks.1.norm2").attribute(x, target=1)
    torch.testing.assert_close(TokenGradCAM(model, model.blocks[1].norm2).attribute(x, target=1), named)
    assert not torch.allclose(TokenGradCAM(model).attribute(x, target=1), named)
    with pytest.raises(ValueError, match=r"zero.*A layer that works is 'blocks\.2\.norm1'"):
        TokenGradCAM(model, "blocks.2").attribute(x, target=1)
    with pytest.raises(ValueError, match=r"has no layer 'blocks\.9'"):
        TokenGradCAM(model, "blocks.9")
    with pytest.raises(ValueError, match="not one of VisionTransformer's"):
        TokenGradCAM(model, torch.nn.Linear(1, 1))
    with pytest.raises(UnsupportedModelError, match="no tokens and no feature map"):
        TokenGradCAM(model, "head").attribute(x, target=1)


@pytest.mark.parametrize(
    ("name", "layer", "grid"),
    [
        ("resnet18", None, (2, 2)),
        ("resnet18", "layer3", (4, 4)),
        ("swin_tiny_patch4_window7_224", "layers.3.blocks.1.norm1", (7, 7)),
        ("swin_tiny_patch4_window7_224", None, (7, 7)),
        ("convnext_atto", None, (2, 2)),
        ("convnext_atto", "stages.1.blocks.0.mlp.fc1", (8, 8)),
        ("swin_tiny_patch4_window7_224", "patch_embed.proj", (56, 56)),
        ("resnet18", "layer4.1.bn2", (2, 2)),
    ],
)
def test_hierarchical_and_convolutional_models(name: str, layer: str | None, grid: tuple[int, int]) -> None:
    model = timm.create_model(name, num_classes=7).eval()
    side = 224 if name.startswith("swin") else 64
    x = torch.randn(2, 3, side, side)
    for method in (TokenGradCAM, TokenGradCAMPlusPlus):
        maps = method(model, layer).attribute(x, target=1, attribute_to="grid", relu_attributions=False)
        assert maps.shape == (2, 1, *grid)
        assert method(model, layer).attribute(x, target=1).shape == x.shape


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
