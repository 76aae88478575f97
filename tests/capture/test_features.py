"""Models whose outputs are features, not classes."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import nn

from captum_astro.capture.features import is_of_huggingface, lacks_classes


class _Published(nn.Linear):
    """A model that says how many outputs it has, and how many its published weights have."""

    def __init__(self, outputs: int, **published: Any) -> None:
        super().__init__(2, 2)
        self.num_classes, self.pretrained_cfg = outputs, published


def test_without_a_classifier() -> None:
    with torch.device("meta"):
        model = timm.create_model("vit_tiny_patch16_224", num_classes=0)
        assert lacks_classes(timm.create_model("vit_tiny_patch16_224")) is None
    assert lacks_classes(model) == "has no classifier (num_classes=0)"


def test_an_image_encoder_of_an_image_text_model() -> None:
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_clip_224.openai")
    assert lacks_classes(model) == "is the image encoder of an image-text model, which returns 512 features"


@pytest.mark.parametrize(
    "model",
    [
        nn.Linear(2, 512),  # says nothing of its outputs
        _Published(512, num_classes=1000),  # a classifier that was trained for 512 classes
        _Published(512, num_classes=512, label_names=["cat"]),
        _Published(1000, num_classes=1000),
        _Published(500, num_classes=500),
    ],
)
def test_classifiers(model: nn.Module) -> None:
    assert lacks_classes(model) is None


def test_hugging_face_by_the_name_of_the_class() -> None:
    def named(name: str) -> nn.Module:
        model = type(name, (nn.Linear,), {"__module__": "transformers.models.vit.modeling_vit"})(2, 2)
        assert is_of_huggingface(model)
        return model

    assert lacks_classes(named("ViTForImageClassification")) is None
    assert lacks_classes(named("ViTModel")) == "has no classifier, so its features are explained"
    assert not is_of_huggingface(nn.Linear(2, 2))
