"""Model classes whose relevance no row over one grid of tokens carries, and what works instead."""

from __future__ import annotations

from timm.models.coat import CoaT
from timm.models.crossvit import CrossVit
from timm.models.edgenext import EdgeNeXt
from timm.models.efficientvit_mit import EfficientVit, EfficientVitLarge
from timm.models.repvit import RepVit
from timm.models.swiftformer import SwiftFormer

from captum_astro.layouts.base import without_layout

_PIXELS = "AttnLRP, ConservativeLRP and LRP need no layout for pixels."
_INSTEAD = f"TokenGradCAM needs no layout. {_PIXELS}"
_LINEAR = f"its attention is linear, with no softmax over the tokens that a query sees. {_INSTEAD}"

without_layout(
    CrossVit,
    "it computes two grids of tokens of different sizes and widths side by side, where a row of relevance follows one. "
    f"TokenGradCAM explains its blocks, such as 'blocks.0.blocks.0.0'. {_PIXELS}",
)
without_layout(
    CoaT,
    "its factorised attention has no softmax over the tokens that a query sees, and its blocks share their "
    f"convolutions. TokenGradCAM explains its blocks, such as 'serial_blocks4.0'. {_PIXELS}",
)
without_layout(EdgeNeXt, f"its attention is over channels, so that only convolutions mix its tokens. {_INSTEAD}")
without_layout(EfficientVit, _LINEAR)
without_layout(EfficientVitLarge, _LINEAR)
without_layout(RepVit, f"it is convolutional and has no attention. {_INSTEAD}")
without_layout(
    SwiftFormer,
    "its additive attention multiplies every token by one vector of all tokens: no map leads from token to token. "
    f"{_INSTEAD}",
)
