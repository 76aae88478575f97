from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from captum_astro.data.images import open_image
from captum_astro.data.transforms import ModelTransform
from captum_astro.models import bundled

SHARED = Path(__file__).parents[3] / "shared" / "data"
SIZES = [(224, 224), (300, 400), (401, 223), (97, 150), (256, 341)]


def _model(name: str, **kwargs: Any) -> nn.Module:
    small = {"embed_dim": 24, "depth": 1, "num_heads": 2, "num_classes": 10}
    return timm.create_model(name, **{**small, **kwargs}).eval()


def _image(height: int, width: int) -> Image.Image:
    random = np.random.default_rng(height + width)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def _tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",  # crop_pct .9, mean .5
        "vit_base_patch16_224.dino",
        "deit_tiny_patch16_224",
        "deit3_small_patch16_224",
        "vit_base_patch16_clip_224.openai",  # means of its own
    ],
)
def test_timm_bit_for_bit(name: str) -> None:
    model = _model(name)
    config = timm.data.resolve_model_data_config(model)
    whole = timm.data.create_transform(**config, is_training=False)
    transform = ModelTransform(model)
    assert transform.size == 224
    for size in SIZES:
        image = _image(*size)
        pixels, mask = transform(_tensor(image))
        wanted = image
        for step in whole.transforms[:-1]:
            wanted = step(wanted)
        assert mask is None
        assert torch.equal(pixels, wanted)
        assert torch.equal(transform.normalise(pixels), whole(image))
        assert torch.equal(transform.normalise(pixels[None])[0], whole(image))
    assert transform.described["crop_pct"] == config["crop_pct"]
    assert transform.described["mean"] == list(config["mean"])


@pytest.mark.skipif(not (SHARED / "images").is_dir(), reason="no photographs in shared/data/images")
def test_photographs_bit_for_bit() -> None:
    model = _model("deit_tiny_patch16_224")
    whole = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    transform = ModelTransform(model)
    files = sorted((SHARED / "images").glob("*.jpg"))
    assert len(files) == 24
    for file in files:
        image = open_image(file)
        assert torch.equal(transform.normalise(transform(_tensor(image))[0]), whole(image))


@pytest.mark.parametrize("crop", ["timm", "none"])
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_the_mask_stays_on_its_pixels(crop: Any, mode: str) -> None:
    """An image that shows its own mask: afterwards the two still agree, except for mixed pixels at the edges."""
    model = _model("vit_tiny_patch16_224", img_size=64, patch_size=8)
    model.pretrained_cfg = {**model.pretrained_cfg, "crop_mode": mode, "interpolation": "bilinear"}
    transform = ModelTransform(model, crop)
    for height, width in ((200, 320), (320, 200), (64, 64), (40, 90)):
        y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        mask = torch.zeros(height, width, dtype=torch.int8)
        mask[(x - 0.2) ** 2 + (y + 0.3) ** 2 < 0.2] = 1
        mask[y > 0.6] = -1
        image = torch.stack([mask == 1, mask == -1, mask == 0]).to(torch.uint8) * 255
        pixels, sized = transform(image, mask)
        assert sized is not None
        assert sized.shape == (64, 64)
        assert sized.dtype == torch.int8
        sure = pixels.max(0).values > 0.99
        assert sure.float().mean() > (0.3 if mode == "border" else 0.8)
        expected = torch.tensor([1, -1, 0], dtype=torch.int8)[pixels.argmax(0)]
        assert torch.equal(sized[sure], expected[sure])
        assert set(sized.unique().tolist()) <= {-1, 0, 1}
        if mode == "border" and crop == "timm" and height != width:  # padding is no object and no background
            assert (sized[~sure] == -1).float().mean() > 0.5


def test_crop_none_is_chefers() -> None:
    from torchvision import transforms as T

    transform = ModelTransform(_model("vit_tiny_patch16_224"), crop="none")
    image = _image(180, 300)
    mask = torch.from_numpy(np.random.default_rng(0).integers(-1, 2, (180, 300)).astype(np.int8))
    pixels, sized = transform(_tensor(image), mask)
    assert torch.equal(pixels, T.ToTensor()(T.Resize((224, 224))(image)))
    assert sized is not None
    # a loop: the source pixel that holds the middle of each target pixel
    for row, column in ((0, 0), (223, 223), (100, 31), (7, 200)):
        assert sized[row, column] == mask[int((row + 0.5) * 180 / 224), int((column + 0.5) * 300 / 224)]
    assert transform.described == {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": 224, "crop": "none"}


def test_sizes_and_wrappers() -> None:
    small = _model("vit_tiny_patch16_224", img_size=32, patch_size=8)
    assert ModelTransform(small).size == 32
    assert ModelTransform(nn.Sequential(small)).size == 32
    own = timm.create_model(bundled.PLAIN)
    for crop in ("timm", "none"):  # an image of the model's size is left as it is
        image = _tensor(_image(64, 64))
        pixels, mask = ModelTransform(own, crop)(image, torch.ones(64, 64, dtype=torch.int8))
        assert torch.equal(pixels, image / 255)
        assert mask is not None
        assert mask.all()
    transform = ModelTransform(small)
    image = _tensor(_image(50, 70))
    assert torch.equal(pickle.loads(pickle.dumps(transform))(image)[0], transform(image)[0])
    assert transform.normalise(torch.zeros(2, 3, 32, 32, dtype=torch.float64)).dtype == torch.float64


def test_invalid_options() -> None:
    model = _model("vit_tiny_patch16_224", img_size=32, patch_size=8)
    with pytest.raises(ValueError, match="crop must be 'timm' or 'none', not 'centre'"):
        ModelTransform(model, "centre")
    with pytest.raises(ValueError, match="3 channels of 32 x 64"):
        ModelTransform(_model("vit_tiny_patch16_224", img_size=(32, 64), patch_size=8))
    transform = ModelTransform(model)
    image = torch.zeros(3, 8, 9, dtype=torch.uint8)
    for bad in (image.float(), image[:1], image[None]):
        with pytest.raises(ValueError, match=r"\(3, H, W\) uint8"):
            transform(bad)
    for bad in (torch.zeros(9, 8, dtype=torch.int8), torch.zeros(8, 9)):
        with pytest.raises(ValueError, match=r"A mask must be int8 of its image's \(8, 9\)"):
            transform(image, bad)
