"""ViT-CX on models: against its definition with plain hooks, and what its options do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from captum_astro.attr.vit_cx import ViTCX
from tests.families import build, images
from tests.functional.test_vit_cx import linked, mapped, rescaled, summed

TARGET = 3


def defined(model: Any, layer: str, x: torch.Tensor, prefix: int, distance: float, seed: int) -> torch.Tensor:
    """The map ``(H, W)`` of one image ``(C, H, W)``, mask by mask."""
    kept: list[torch.Tensor] = []
    handle = model.get_submodule(layer).register_forward_hook(lambda module, given, output: kept.append(output))
    with torch.no_grad():
        clean = model(x[None]).softmax(-1)[0, TARGET]
    handle.remove()
    tokens = kept[0][0, prefix:].detach()
    side = round(len(tokens) ** 0.5)
    grids = tokens.T.reshape(-1, 1, side, side)
    rows = F.interpolate(grids, x.shape[1:], mode="bilinear", align_corners=False).flatten(1).tolist()
    masks = rescaled(rows)
    masks = summed(masks, linked(masks, distance))
    generator, impacts = torch.Generator().manual_seed(seed), []
    for mask in masks:
        m = torch.tensor(mask, dtype=x.dtype).reshape(1, *x.shape[1:])
        z = 0.1 * torch.randn(x.shape, generator=generator).to(x) * (1 - m)
        with torch.no_grad():
            through, whole = (model(one[None]).softmax(-1)[0, TARGET] for one in (x * m + z, x + z))
        impacts.append(float(through - whole + clean))
    return torch.tensor(mapped(masks, impacts), dtype=x.dtype).reshape(x.shape[1:])


@pytest.mark.parametrize(("name", "prefix"), [("cls", 1), ("registers", 5), ("average", 0)])
@pytest.mark.parametrize("options", [{}, {"distance": 0.2, "seed": 7}], ids=["published", "others"])
def test_the_definition(name: str, prefix: int, options: dict[str, Any]) -> None:
    model, x = build(name), images(name, 1)
    expected = defined(model, "blocks.2.norm1", x[0], prefix, options.get("distance", 0.1), options.get("seed", 0))
    found = ViTCX(model).attribute(x, target=TARGET, attribute_to="pixels", **options)[0, 0]
    assert (found - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert expected.std() > 0.01 * expected.abs().max()


def test_the_grid_is_the_mean_of_its_cells() -> None:
    model, x = build("cls"), images("cls", 2)
    pixels, grid, tokens = (
        ViTCX(model).attribute(x, target=TARGET, attribute_to=form) for form in ("pixels", "grid", "tokens")
    )
    assert torch.allclose(grid, F.adaptive_avg_pool2d(pixels, grid.shape[2:]), rtol=1e-12, atol=0)
    assert torch.equal(tokens[:, 1:], grid.flatten(1))
    assert not tokens[:, :1].any()
    spread = ViTCX(model).attribute(x, target=TARGET)
    assert torch.allclose(spread.sum(1, keepdim=True), pixels, rtol=1e-12, atol=0)


def test_the_logit_and_the_noise() -> None:
    model, x = build("cls"), images("cls", 1)
    explain = ViTCX(model).attribute
    shifted = build("cls")
    with torch.no_grad():
        shifted.head.bias += 2.0  # of every class: no probability changes, and each logit by 2
    for output, change in (("probability", 0.0), ("logit", 2.0)):
        before, after = (
            ViTCX(one).attribute(x, target=TARGET, output=output, attribute_to="pixels") for one in (model, shifted)
        )
        masks = 13  # each impact rises by 2, and the map by 2 / N
        assert torch.allclose(after - before, torch.full_like(before, change / masks), rtol=1e-9, atol=1e-12)
    assert torch.equal(explain(x, target=TARGET, noise=0.0), explain(x, target=TARGET, noise=0.0, seed=5))
    assert not torch.equal(explain(x, target=TARGET), explain(x, target=TARGET, seed=5))
    assert torch.equal(explain(x, target=TARGET), explain(x, target=TARGET))
