"""Convolutions as the propagation rules run them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from captum_astro.capture.convolutions import convolution, of_patches, reads_patches

READS = [{"stride": 4}, {"stride": (4, 4), "padding": "valid"}, {"stride": (4, 4), "padding": (0, 0), "groups": 1}]
OTHERS = [
    {},
    {"stride": 2},
    {"stride": 4, "padding": 1},
    {"stride": 4, "padding": "same"},
    {"stride": 4, "groups": 3},
    {"stride": 4, "dilation": 2},
]


def _given(size: tuple[int, int] = (8, 12), groups: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, 3, *size).double(), torch.randn(6, 3 // groups, 4, 4).double()


@pytest.mark.parametrize("given", READS)
def test_patches_are_read_as_by_the_convolution(given: dict[str, Any]) -> None:
    x, weight = (t.requires_grad_() for t in _given())
    assert reads_patches(F.conv2d, x, weight, given)
    found, expected = of_patches(x, weight), F.conv2d(x, weight, None, **given)
    torch.testing.assert_close(found, expected)
    share = torch.randn_like(found)
    for one, other in zip(*(torch.autograd.grad(y, (x, weight), share) for y in (found, expected)), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("given", OTHERS)
def test_any_other_convolution_stays_one(given: dict[str, Any]) -> None:
    assert not reads_patches(F.conv2d, *_given(groups=given.get("groups", 1)), given)


def test_pixels_beyond_the_last_patch_are_not_patches() -> None:
    assert not reads_patches(F.conv2d, *_given((8, 13)), {"stride": 4})
    assert not reads_patches(F.conv1d, torch.randn(1, 3, 8), torch.randn(6, 3, 4), {"stride": 4})
    assert not reads_patches(F.conv_transpose2d, torch.randn(1, 6, 8, 8), torch.randn(6, 3, 4, 4), {"stride": 4})


@pytest.mark.parametrize("given", [*READS, {"stride": 2, "padding": 1}, {"padding": "same"}, {"groups": 3}])
def test_the_transpose_is_the_gradient(given: dict[str, Any]) -> None:
    x, weight = _given(groups=given.get("groups", 1))
    product, back = convolution(F.conv2d, given, x.clone())
    leaf = x.clone().requires_grad_()
    output = F.conv2d(leaf, weight, None, **given)
    torch.testing.assert_close(product(x, weight), output)
    share = torch.randn_like(output)
    (expected,) = torch.autograd.grad(output, leaf, share)
    torch.testing.assert_close(back(share, weight), expected)
