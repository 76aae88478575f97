from __future__ import annotations

from typing import Any

import pytest
import torch
from captum.attr import KernelShap, Lime

from captum_astro import UnsupportedModelError, ViTA
from captum_astro.evaluation.run.maps import Maps, _number
from captum_astro.evaluation.run.patch_maps import patch_mask
from captum_astro.evaluation.specification.methods import methods_of
from tests.families import build

SIDE = 32


def _maps(word: str, model: torch.nn.Module, x: torch.Tensor, numbers: list[int]) -> Any:
    [method] = methods_of(word)
    return Maps(method, model, 0)(x, [1] * len(x), numbers, 8)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return build("cls", torch.float32)


def _images(count: int) -> torch.Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def test_the_patches_of_the_model(model) -> None:
    grid = model.patch_embed.grid_size
    side = SIDE // grid[0]
    expected = [[grid[1] * (y // side) + x // side for x in range(SIDE)] for y in range(SIDE)]
    assert patch_mask(grid, (SIDE, SIDE))[0, 0].tolist() == expected


@pytest.mark.parametrize("astrocytes", [False, True])
def test_occlusion_is_the_change_without_a_patch(model, astrocytes: bool) -> None:
    model = ViTA(model, phi=0.0) if astrocytes else model
    x, mask = _images(2), patch_mask((model.model if astrocytes else model).patch_embed.grid_size, (SIDE, SIDE))
    expected = torch.zeros(2, SIDE, SIDE)
    with torch.no_grad():
        for number in range(int(mask.max()) + 1):
            change = model(x)[:, 1] - model(torch.where(mask == number, 0.0, x))[:, 1]
            expected += change[:, None, None] * (mask[:, 0] == number)
    torch.testing.assert_close(_maps("Occlusion", model, x, [0, 1]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "captum"), [("Lime", Lime), ("KernelShap", KernelShap)])
def test_random_subsets_depend_on_the_sample_alone(model, name: str, captum: Any) -> None:
    x, word = _images(2), f"{name}:samples=20"
    before = torch.random.get_rng_state()
    found = _maps(word, model, x, [4, 5])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(_maps(word, model, x[1:], [5])[0], found[1])
    assert not torch.equal(_maps(word, model, x[1:], [6])[0], found[1])
    with torch.random.fork_rng([]):
        torch.manual_seed(_number(0, word, 5))
        mask = patch_mask(model.patch_embed.grid_size, (SIDE, SIDE))
        expected = captum(model).attribute(x[1:], target=1, feature_mask=mask, n_samples=20, perturbations_per_eval=16)
    torch.testing.assert_close(found[1], expected[0, 0].float())


def test_shapley_values_add_up(model) -> None:
    x, cells = _images(1), int(patch_mask(model.patch_embed.grid_size, (SIDE, SIDE)).max()) + 1
    found = _maps("KernelShap:samples=400", model, x, [0])
    with torch.no_grad():
        whole = (model(x) - model(torch.zeros_like(x)))[0, 1]
    assert float(found.sum() * cells / SIDE**2) == pytest.approx(float(whole), rel=1e-2, abs=1e-3)


def test_a_model_without_known_patches_is_refused() -> None:
    with pytest.raises(UnsupportedModelError):
        _maps("Occlusion", torch.nn.Flatten(), _images(1), [0])


def test_sample_counts_are_an_option() -> None:
    assert [m.name for m in methods_of("lime:samples=7,kernelshap,OCCLUSION")] == [
        "Lime:samples=7",
        "KernelShap",
        "Occlusion",
    ]
    assert methods_of("lime:samples=7")[0].calling == {"samples": 7}
    for word, message in (
        ("Lime:samples=1", "Lime: samples must be a whole number from 2"),
        ("Lime:steps=3", "Lime has no option 'steps=3'. Options: samples"),
        ("Occlusion:samples=3", "Occlusion takes no options"),
    ):
        with pytest.raises(ValueError, match=message):
            methods_of(word)
