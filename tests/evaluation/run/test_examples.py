from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from captum_astro.evaluation.run.cases import Case
from captum_astro.evaluation.run.examples import kept_image, kept_map


def test_small_maps_and_images() -> None:
    pixels = torch.zeros(3, 448, 448)
    pixels[0] = 1
    case = Case(3, "red", None, pixels, None, None, "")
    image = kept_image(case, "vit", "7 red", "8")
    assert (image.predicted, image.true) == ("7 red", "8")
    with Image.open(io.BytesIO(image.data)) as picture:
        assert picture.size == (224, 224) == (image.width, image.height)
        assert np.asarray(picture).mean((0, 1)).round().tolist() == [254, 0, 0]
    found = torch.rand(112, 112) * 1e-9  # below the smallest half
    kept = kept_map(case, "vit", "LRP", "true", found)
    values = np.frombuffer(kept.data, "<f2").reshape(kept.height, kept.width)
    expected = found.double().reshape(56, 2, 56, 2).mean((1, 3))
    assert np.allclose(values, expected / expected.max(), atol=1e-3)
    small = kept_map(case, "vit", "LRP", "true", torch.zeros(8, 4))
    assert (small.height, small.width, small.data) == (8, 4, bytes(64))
