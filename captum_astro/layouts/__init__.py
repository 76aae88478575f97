"""What a model's tokens mean, one file per model family. Importing this package registers all of them."""

from captum_astro.layouts import astromorphic, eva, naflexvit, relative_position, swin, text, vision_transformer
from captum_astro.layouts.base import Layout, layout_for, register_layout
from captum_astro.layouts.errors import UnsupportedModelError

__all__ = [
    "Layout",
    "UnsupportedModelError",
    "astromorphic",
    "eva",
    "layout_for",
    "naflexvit",
    "register_layout",
    "relative_position",
    "swin",
    "text",
    "vision_transformer",
]
