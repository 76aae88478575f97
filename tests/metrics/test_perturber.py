from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import nn

from captum_astro import VTranM
from captum_astro.metrics.perturber import Curves, Perturber
from captum_astro.models import bundled
from tests.families import FAMILIES
from tests.metrics.test_perturbation import masks_by_loops

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 10}


def normaliser(dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    mean, std = (torch.tensor(values, dtype=dtype)[:, None, None] for values in (MEAN, STD))
    return lambda pixels: (pixels - mean) / std


class Counted(nn.Module):
    """Records its inputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x.clone())
        return self.model(x)


def tiny(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", **TINY).eval().to(dtype)
    nn.init.normal_(model.head.weight, std=1.0)
    return model


def drawn(dtype: torch.dtype, images: int = 3, maps: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels, and maps that have ties."""
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(images, 3, 32, 32, generator=generator, dtype=dtype)
    return pixels, torch.randn(maps, 32, 32, generator=generator).mul(8).round()


def naive(
    model: nn.Module, normalise: Callable[[torch.Tensor], torch.Tensor], pixels: torch.Tensor, salience: torch.Tensor
) -> list[list[torch.Tensor]]:
    """One image and map: perturbed inputs of both directions, in [0, 1], then normalised, each by itself."""
    found = []
    for first in (True, False):
        masks = masks_by_loops(salience.flatten().tolist(), 20, most_important_first=first)
        inputs = []
        for mask in masks:
            perturbed = pixels.clone()
            perturbed[:, torch.tensor(mask).reshape(salience.shape)] = 0
            inputs.append(normalise(perturbed[None]))
        found.append(inputs)
    return found


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
@pytest.mark.parametrize("batch_size", [1, 7, 19, 64])
def test_equals_the_naive_loop(dtype: torch.dtype, tolerance: float, batch_size: int) -> None:
    """The model's inputs match exactly, and its outputs to rounding."""
    model, normalise = Counted(tiny(dtype)).eval(), normaliser(dtype)
    pixels, maps = drawn(dtype)
    engine = Perturber(model, normalise, batch_size=batch_size)
    untouched = engine.untouched(pixels)
    engine.blank(pixels)
    model.seen.clear()
    curves = engine.curves(pixels, maps, untouched)
    expected = [naive(model.model, normalise, image, salience) for image, salience in zip(pixels, maps, strict=True)]
    given = torch.cat(model.seen).reshape(2, 3, 19, 3, 32, 32)
    assert [len(batch) for batch in model.seen[:-1]] == [min(batch_size, 114)] * (len(model.seen) - 1)
    with torch.no_grad():
        for one in range(3):
            for direction, curve in enumerate(curves):
                inputs = expected[one][direction]
                assert torch.equal(given[direction, one], torch.cat(inputs[1:-1]))
                logits = torch.cat([model.model(x) for x in inputs])
                scale = logits.abs().max()
                assert (curve[one] - logits).abs().max() <= tolerance * scale
                assert curve.dtype == dtype
    assert not torch.equal(curves.positive, curves.negative)


def test_runs_only_the_needed_forward_passes() -> None:
    model = Counted(tiny(torch.float32)).eval()
    pixels, maps = drawn(torch.float32)
    engine = Perturber(model, normaliser(torch.float32), batch_size=10)
    untouched = engine.untouched(pixels)
    assert sum(map(len, model.seen)) == 3
    first = engine.curves(pixels, maps, untouched)
    assert sum(map(len, model.seen)) == 3 + 1 + 3 * 2 * 19
    second = engine.curves(pixels, -maps, untouched)
    assert sum(map(len, model.seen)) == 3 + 1 + 6 * 2 * 19
    positive = engine.curve(pixels, maps, untouched, most_important_first=True)
    assert sum(map(len, model.seen)) == 3 + 1 + 6 * 2 * 19 + 3 * 19
    torch.testing.assert_close(positive, first.positive, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        engine.curve(pixels, maps, untouched, most_important_first=False), first.negative, rtol=1e-6, atol=1e-6
    )
    for curves in (first, second):
        for curve in curves:
            assert torch.equal(curve[:, 0], untouched)
            assert torch.equal(curve[:, -1], engine.blank(pixels).expand(3, -1))
    smaller = torch.rand(1, 3, 32, 32, dtype=torch.float32)
    assert engine.blank(smaller) is engine.blank(pixels)


def test_many_maps_share_an_image() -> None:
    model, normalise = tiny(torch.float64), normaliser(torch.float64)
    pixels, maps = drawn(torch.float64, images=2, maps=5)
    owner = torch.tensor([1, 0, 0, 1, 1])
    engine = Perturber(model, normalise, batch_size=11)
    untouched = engine.untouched(pixels)
    shared = engine.curves(pixels, maps, untouched, owner)
    repeated = engine.curves(pixels[owner], maps[:, None], untouched[owner])
    for one, other in zip(shared, repeated, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
        assert torch.equal(one[:, 0], untouched[owner])
    nothing = engine.curves(pixels, maps[:0], untouched, owner[:0])
    assert nothing.positive.shape == nothing.negative.shape == (0, 21, 10)


@pytest.mark.parametrize("steps", [1, 2, 33])
def test_any_number_of_steps(steps: int) -> None:
    model, normalise = tiny(torch.float64), normaliser(torch.float64)
    pixels, maps = drawn(torch.float64)
    engine = Perturber(model, normalise, steps=steps)
    curves = engine.curves(pixels, maps, engine.untouched(pixels))
    for first, curve in zip((True, False), curves, strict=True):
        assert curve.shape == (3, steps + 1, 10)
        for level in range(steps + 1):
            mask = masks_by_loops(maps[2].flatten().tolist(), steps, most_important_first=first)[level]
            perturbed = pixels[2:].masked_fill(torch.tensor(mask).reshape(32, 32), 0)
            with torch.no_grad():
                torch.testing.assert_close(curve[2, level], model(normalise(perturbed))[0], rtol=0, atol=1e-11)


def test_no_side_effects() -> None:
    model, normalise = tiny(torch.float32), normaliser(torch.float32)
    pixels, maps = drawn(torch.float32)
    pixels.requires_grad_()
    before, kept = pixels.detach().clone(), maps.clone()
    engine = Perturber(model, normalise)
    untouched = engine.untouched(pixels)
    curves = engine.curves(pixels, maps, untouched)
    assert torch.equal(pixels, before)
    assert torch.equal(maps, kept)
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in model.parameters())
    for tensor in (*curves, untouched, engine.blank(pixels)):
        assert not tensor.requires_grad
        assert not tensor.is_inference()  # else they could not be used with others under autograd
    assert isinstance(curves, Curves)


@pytest.mark.parametrize("family", ["cls", "dynamic_rectangular", "dinov3", "eva02", "beit", "distilled"])
def test_explanations_work_after_a_run(family: str) -> None:
    """Values cached in a forward pass must be usable in a later backward pass."""
    torch.manual_seed(0)
    model = FAMILIES[family]().eval()
    pixels, maps = drawn(torch.float32, images=1, maps=1)
    engine = Perturber(model, normaliser(torch.float32), steps=3)
    engine.curves(pixels, maps, engine.untouched(pixels))
    assert VTranM(model).attribute(pixels, target=0).isfinite().all()


def test_lower_precision_is_asked_for() -> None:
    model = tiny(torch.float32)
    pixels, maps = drawn(torch.float32)
    normalise = normaliser(torch.float32)
    exact, low = Perturber(model, normalise), Perturber(model, normalise, autocast=torch.bfloat16)
    one, other = (engine.curves(pixels, maps, engine.untouched(pixels)) for engine in (exact, low))
    assert other.positive.dtype == torch.float32
    difference = (one.positive - other.positive).abs().max() / one.positive.abs().max()
    assert 1e-5 < difference < 0.1


def test_the_bundled_model_loses_the_class_as_the_object_goes() -> None:
    from captum_astro.data.scenes import Scenes, batch

    model = timm.create_model(bundled.PLAIN, pretrained=True).eval()
    pixels, labels, masks = batch(Scenes("test"), range(2))
    engine = Perturber(model, lambda x: (x - 0.5) / 0.5, batch_size=16, steps=10)
    curves = engine.curves(pixels, masks.float(), engine.untouched(pixels))
    rows = torch.arange(2)
    drop = [curve.softmax(-1)[rows, :, labels].mean() for curve in curves]
    assert drop[0] < drop[1] - 0.3


def bad(**changed: Any) -> Curves:
    pixels, maps = drawn(torch.float32)
    arguments = {"pixels": pixels, "maps": maps, "untouched": torch.zeros(3, 10)} | changed
    return Perturber(changed.pop("model", tiny(torch.float32)), normaliser(torch.float32)).curves(
        **{name: value for name, value in arguments.items() if name != "model"}
    )


def test_bad_input_is_named() -> None:
    pixels, maps = drawn(torch.float32)
    with pytest.raises(ValueError, match="divide bytes by 255"):
        bad(pixels=pixels * 255)
    with pytest.raises(ValueError, match="leave the normalisation"):
        bad(pixels=normaliser(torch.float32)(pixels))
    with pytest.raises(ValueError, match=r"nan \.\. nan"):
        bad(pixels=pixels * torch.nan)
    with pytest.raises(ValueError, match="float"):
        bad(pixels=pixels.long())
    with pytest.raises(ValueError, match=r"maps \(3, 16, 32\) do not fit"):
        bad(maps=maps[:, ::2])
    with pytest.raises(ValueError, match="2 maps for 3 images: say with owner"):
        bad(maps=maps[:2])
    with pytest.raises(ValueError, match="2 owners"):
        bad(owner=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="from 0 to 2"):
        bad(owner=torch.tensor([0, 1, 3]))
    with pytest.raises(ValueError, match="from 0 to 2"):
        bad(owner=torch.tensor([0, 1, -1]))
    with pytest.raises(ValueError, match=r"untouched: \(3, 10\)"):
        bad(untouched=torch.zeros(2, 10))
    with pytest.raises(ValueError, match="untouched"):
        bad(untouched=torch.zeros(3, 9))
    with pytest.raises(ValueError, match=r"NaN or infinite values at \[1\]"):
        bad(maps=torch.stack([maps[0], maps[1] * torch.inf, maps[2]]))
    with pytest.raises(ValueError, match=r"model\.eval\(\)"):
        bad(model=tiny(torch.float32).train())
    with pytest.raises(ValueError, match=r"gives \(3, 17, 24\) for 3 images"):
        Perturber(tiny(torch.float32).forward_features, normaliser(torch.float32)).untouched(pixels)
    with pytest.raises(ValueError, match="depend on others"):
        Perturber(tiny(torch.float32), lambda x: x - x.mean((2, 3), keepdim=True)).blank(pixels)
    with pytest.raises(ValueError, match="steps"):
        Perturber(tiny(torch.float32), normaliser(torch.float32), steps=0)
    with pytest.raises(ValueError, match="batch_size"):
        Perturber(tiny(torch.float32), normaliser(torch.float32), batch_size=0)
