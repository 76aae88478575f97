from __future__ import annotations

import pytest
import timm
import torch
from PIL import Image

from captum_astro.data.view import Crop, View
from captum_astro.models.loading import preprocessing

SIZES = [(200, 100), (100, 200), (33, 47), (64, 64), (640, 481)]


def _model(**changes: object) -> torch.nn.Module:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=12, depth=1, num_heads=1)
    model.pretrained_cfg = {**model.pretrained_cfg, "interpolation": "bilinear", **changes}
    return model


def _slope(size: tuple[int, int], axis: int) -> Image.Image:
    """An image that grows brighter along an axis by 256 / its length per pixel."""
    ramp = torch.arange(size[axis]) * (255.0 / size[axis])
    grey = ramp.expand(size[1], size[0]) if axis == 0 else ramp[:, None].expand(size[1], size[0])
    return Image.fromarray(grey.byte().numpy()).convert("RGB")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fit", ["center", "squash", "none"])
@pytest.mark.parametrize("crop_pct", [1.0, 0.8])
def test_the_box_is_what_the_model_sees(size: tuple[int, int], fit: str, crop_pct: float) -> None:
    view = View(_model(crop_pct=crop_pct), fit)
    for axis in (0, 1):
        x, crop = view(_slope(size, axis))
        values = (x * torch.tensor(view.std)[:, None, None] + torch.tensor(view.mean)[:, None, None])[0]
        line = values.mean(0 if axis == 0 else 1) * size[axis]  # the place of each pixel in the image
        start, end = crop.box[axis], crop.box[axis + 2]
        expected = start + (torch.arange(32) + 0.5) * (end - start) / 32 - 0.5
        inside = (expected > 3 * size[axis] / 32) & (expected < size[axis] - 3 * size[axis] / 32)
        if (crop.box[1 - axis], crop.box[3 - axis]) == (0, size[1 - axis]):  # without borders, which dilute the mean
            torch.testing.assert_close(line[inside], expected[inside], atol=1.5 + 0.006 * size[axis], rtol=0)
    assert (crop.size, crop.fit) == (size, fit)


@pytest.mark.parametrize("size", SIZES)
def test_the_centre_is_the_models_own_preprocessing(size: tuple[int, int]) -> None:
    model = timm.create_model("test_vit")
    image = Image.effect_noise(size, 80).convert("RGB")
    assert torch.equal(View(model)(image)[0], preprocessing(model)[0](image))


def test_shares_are_said() -> None:
    image = Image.new("RGB", (200, 100))
    said = {fit: View(_model(crop_pct=1.0), fit)(image)[1] for fit in ("center", "squash", "none")}
    assert {fit: crop.box for fit, crop in said.items()} == {
        "center": (50, 0, 150, 100), "squash": (0, 0, 200, 100), "none": (0, -50, 200, 150),
    }  # fmt: skip
    assert [crop.share for crop in said.values()] == [0.5, 1, 1]
    assert str(said["center"]) == "center crop: the model sees 50% of the image"
    assert str(said["none"]) == str(Crop("squash", (0, 0, 8, 8), (8, 8))) == "the model sees the whole image"


def test_no_such_fit() -> None:
    with pytest.raises(ValueError, match="crop must be center, squash or none, not 'timm'"):
        View(_model(), "timm")
