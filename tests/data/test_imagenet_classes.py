from __future__ import annotations

import pytest

from captum_astro.data.imagenet_classes import WNID, imagenet_class, imagenet_classes
from captum_astro.data.tables import DataError

WNIDS = ("n01440764", "n02123045", "n15075141")  # classes 0, 281 and 999


def test_classes() -> None:
    classes = imagenet_classes()
    assert list(classes) == sorted(classes)
    assert list(classes.values()) == list(range(1000))
    assert [classes[wnid] for wnid in WNIDS] == [0, 281, 999]


def test_ids() -> None:
    assert all(WNID.fullmatch(wnid) for wnid in imagenet_classes())
    assert imagenet_class("n02123045", "here") == 281
    with pytest.raises(DataError, match="there: n00000001 is not one of ImageNet's 1000 classes"):
        imagenet_class("n00000001", "there")
