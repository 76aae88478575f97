"""Models of convolutions and of attention whose map is not over tokens, and what works instead."""

from __future__ import annotations

from timm.models.edgenext import EdgeNeXt
from timm.models.efficientvit_mit import EfficientVit, EfficientVitLarge
from timm.models.repvit import RepVit
from timm.models.swiftformer import SwiftFormer

from captum_astro.layouts.base import has_none

has_none(
    EdgeNeXt,
    "its attention is over channels, so that only convolutions mix its tokens. TokenGradCAM needs no layout.",
)
has_none(RepVit, "it is convolutional and has no attention. TokenGradCAM needs no layout.")
for _class in (EfficientVit, EfficientVitLarge):
    has_none(
        _class,
        "its attention is linear, with no softmax over the tokens that a query sees. TokenGradCAM needs no layout.",
    )
has_none(
    SwiftFormer,
    "its additive attention multiplies every token by one vector of all tokens: no map leads from token to token. "
    "TokenGradCAM needs no layout.",
)
