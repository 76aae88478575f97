"""Tiny models whose stages have parts of their own kind, and what is expected of their layouts: see `families`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from timm.models.xcit import Xcit
from torch import nn

_xcit = partial(
    Xcit, img_size=48, patch_size=8, embed_dim=12, depth=2, num_heads=2, mlp_ratio=2, num_classes=5, eta=0.7,
    norm_layer=partial(nn.LayerNorm, eps=0.1),  # a token that is only read normalised has no gradient along itself
)  # fmt: skip

STAGED: dict[str, Callable[[], nn.Module]] = {
    # 6 x 5 tokens from an image that is not whole patches, then a class token
    "xcit": partial(_xcit, tokens_norm=True),
    "xcit_nano": partial(_xcit, tokens_norm=False),
}
SIZES = {"xcit": (43, 37), "xcit_nano": (43, 37)}

_LOCAL = ("blocks.0.local_mp and 1 more: its depthwise convolution",)
# the grid of each tiny model, and what it is approximate about: parts of the sentences, none if it is exact
EXPECTED: dict[str, tuple[tuple[int, int], tuple[str, ...]]] = {"xcit": ((6, 5), _LOCAL), "xcit_nano": ((6, 5), _LOCAL)}
# an operation for which z+ has no rule
WITHOUT_RULES: dict[str, str] = {}
# timm's modules, all of whose names have a layout or are refused with the reason
MODULES = ("xcit",)
REFUSED: dict[str, str] = {}
# a name with an option that is refused, and the way out
OPTIONS = [("xcit_nano_12_p16_224", {"global_pool": "avg"}, "Create it with global_pool='token'")]
