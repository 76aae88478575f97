from __future__ import annotations

import pytest
import timm
import torch

from captum_astro.data.view import View
from captum_astro.explaining.curves import curves
from captum_astro.explaining.token_row import contributions


def _deleted(model: torch.nn.Module, x: torch.Tensor, order: list[int], target: int) -> list[float]:
    """The probability as pixels become black in this order, one image and one step of a quarter at a time."""
    black, found = (torch.zeros(3) - 0.5) / 0.5, []
    for quarter in range(5):
        image = x.clone()
        for place in order[: quarter * len(order) // 4]:
            image[0, :, place // 64, place % 64] = black
        with torch.no_grad():
            found.append(float(model(image)[0].double().softmax(-1)[target]))
    return found


def test_curves_are_those_of_a_loop_over_the_pixels() -> None:
    model = timm.create_model("scenes_vit_tiny_patch4_64", pretrained=True).eval()
    x, maps = torch.rand(1, 3, 64, 64) * 2 - 1, torch.rand(2, 64, 64)
    found = curves(model, x, maps, [3, 8], View(model), steps=4)
    for curve, values, target in zip(found, maps.flatten(1), [3, 8], strict=True):
        best_first = values.argsort(descending=True).tolist()
        expected = torch.tensor(_deleted(model, x, best_first, target), dtype=torch.float64)
        torch.testing.assert_close(curve.deletion, expected, rtol=1e-4, atol=1e-7)
        # inserting the best first is deleting the worst first, read backwards
        expected = torch.tensor(_deleted(model, x, best_first[::-1], target)[::-1], dtype=torch.float64)
        torch.testing.assert_close(curve.insertion, expected, rtol=1e-4, atol=1e-7)
        means = (curve.insertion[1:] + curve.insertion[:-1]) / 2
        assert curve.areas[1] == pytest.approx(float(means.mean()))


@pytest.mark.parametrize(
    ("name", "final", "prefix"), [("scenes_vit_tiny_patch4_64", 16, 1), ("scenes_pit_tiny_patch4_64", 8, 1)]
)
def test_a_row_of_the_contribution_map_is_that_of_the_clicked_patch(name: str, final: int, prefix: int) -> None:
    model = timm.create_model(name, pretrained=True).eval()
    found = contributions(model, torch.rand(1, 3, 64, 64), 3)
    assert found.map.shape == (prefix + final**2, prefix + 16**2)
    row, place = found.at(9, 14)
    assert place == (9 * final // 16, 14 * final // 16)
    assert torch.equal(row, found.map[prefix + place[0] * final + place[1], prefix:].reshape(16, 16))
    with pytest.raises(ValueError, match=r"no patch \(16, 0\): they run from \(0, 0\) to \(15, 15\)"):
        found.at(16, 0)
