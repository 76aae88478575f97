from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from captum_astro.data.arrays import as_human, as_image, decoded


def test_images() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    expected = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    assert torch.equal(as_image(pixels), expected)
    assert torch.equal(as_image(pixels.transpose(2, 0, 1)), expected)
    assert torch.equal(as_image(pixels.astype(np.float32) + np.float32(0.3)), expected)
    assert torch.equal(as_image(pixels.astype(np.int64)), expected)
    assert as_image(np.zeros((5, 6, 3), np.float32)).max() == 0
    for bad, message in (
        (pixels[..., :2], r"not \(5, 6, 2\)"),
        (pixels / 255.0, "0 to 255, not 0"),
        (pixels - 128.0, "0 to 255, not -128"),
        (np.full((5, 6, 3), np.nan), "not finite"),
        (np.full((5, 6, 3), "a"), "made of numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            as_image(bad)


def test_maps() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    expected = torch.arange(12).reshape(3, 4) / 255
    for shape in ((3, 4), (3, 4, 1), (1, 3, 4)):
        assert torch.equal(as_human(grey.reshape(shape)), expected)
    floats = np.random.default_rng(0).random((3, 4)) * 7
    assert torch.equal(as_human(floats), torch.from_numpy(floats).float())
    assert as_human(floats - floats.min() - 1e-9).min() == 0
    for bad, message in (
        (np.zeros((3, 4, 2)), r"not \(3, 4, 2\)"),
        (np.zeros((0, 4)), r"not \(0, 4\)"),
        (floats - 8, "at least 0"),
        (floats * np.inf, "not finite"),
    ):
        with pytest.raises(ValueError, match=message):
            as_human(bad)


def test_decoded() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    assert np.array_equal(decoded(file.getvalue(), 3), pixels)
    assert decoded(file.getvalue(), 1).shape == (6, 6)
    raw = pixels.astype("<f4")
    assert np.array_equal(decoded(raw.tobytes(), 3), raw)
    raw[0, 0, 0] = np.frombuffer(b"\xff\xd8\xff\x42", "<f4")[0]
    assert np.array_equal(decoded(raw.tobytes(), 3), raw)
    with pytest.raises(ValueError, match="is damaged"):
        decoded(file.getvalue()[:60], 3)
    for length in (0, 7, 4 * 3 * 5):
        with pytest.raises(ValueError, match=f"{length} bytes are not a JPEG or PNG"):
            decoded(bytes(length), 3)
