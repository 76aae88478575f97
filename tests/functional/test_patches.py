from __future__ import annotations

import pytest
import torch
from timm.models.naflexvit import batch_patchify

from captum_astro import image_from_patches


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_image_comes_back(channels_last: bool) -> None:
    image = torch.rand(1, 3, 12, 20)
    (patches,), grid = batch_patchify(image, (4, 5), channels_last=channels_last)
    assert grid == (3, 4)
    order = torch.randperm(12)
    coord = torch.cartesian_prod(torch.arange(3), torch.arange(4))[order]
    padded = torch.cat([patches[order], torch.ones(2, 60)])
    coord, valid = torch.cat([coord, coord[:2]]), torch.tensor([True] * 12 + [False] * 2)
    assert torch.equal(image_from_patches(padded, coord, valid, (4, 5), channels_last), image[0])
    form = (4, 5, 3) if channels_last else (3, 4, 5)
    assert torch.equal(image_from_patches(padded.reshape(-1, *form), coord, valid, (4, 5), channels_last), image[0])
    valid[order.tolist().index(5)] = False  # row 1, column 1
    found = image_from_patches(padded, coord, valid, (4, 5), channels_last)
    assert not found[:, 4:8, 5:10].any()
    assert (found != image[0]).sum() == 3 * 4 * 5


def test_what_is_no_list_of_one_image() -> None:
    patches, coord, valid = torch.rand(3, 12), torch.zeros(3, 2, dtype=torch.long), torch.ones(3) > 0
    with pytest.raises(ValueError, match=r"must be \(3, 2\) and patch_valid \(3,\)"):
        image_from_patches(patches, coord[:2], valid, 2)
    with pytest.raises(ValueError, match=r"must be \(1, 2\).*Choose an image"):
        image_from_patches(patches[None], coord[None], valid[None], 2)
    for wrong, which, size in [(patches, valid, 5), (patches, valid, 0), (patches, ~valid, 2)]:
        with pytest.raises(ValueError, match=rf"hold no patch of {size} x {size} pixels"):
            image_from_patches(wrong, coord, which, size)
