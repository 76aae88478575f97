from __future__ import annotations

import pytest
import timm
import torch

from captum_astro.explaining.classes import Class, index_of
from captum_astro.models.loading import class_names

IMAGENET = class_names(timm.create_model("vit_tiny_patch16_224"), 1000)


@pytest.mark.parametrize(
    ("wanted", "index"),
    [(None, 7), ("top1", 7), (281, 281), ("281", 281), ("tabby", 281), ("Tabby Cat", 281), (" zebra ", 340)],
)
def test_classes_by_index_or_name(wanted: int | str | None, index: int) -> None:
    assert index_of(wanted, torch.eye(1000)[7], IMAGENET) == index


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("cat", r"'cat': no class has that name; give the index, from 0 to 999. Near: 281 tabby, 282 tiger cat, 283"),
        ("crane", r"'crane': 2 classes have that name; give the index, from 0 to 999. Near: 134 crane, 517 crane\.$"),
        ("zebbra", "Near: 340 zebra"),
        ("qqqq", "from 0 to 999.$"),
        ("1000", "target 1000: the model's classes run from 0 to 999"),
        (1.5, "must be the index or name"),
    ],
)
def test_candidates_are_listed(wanted: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        index_of(wanted, torch.zeros(1000), IMAGENET)


def test_a_class_in_words() -> None:
    assert str(Class(281, "tabby, tabby cat", 0.634)) == "tabby 63%"
