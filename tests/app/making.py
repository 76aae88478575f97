"""An image and what is asked of it, for the tests of the app."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any

from PIL import Image

from captum_astro.app.explained import Explained, explained
from captum_astro.app.networks import Networks
from captum_astro.app.wish import ModelWish, Wish
from captum_astro.models.bundled import PLAIN

IMAGE = Image.effect_noise((80, 64), 90).convert("RGB")
WISH = Wish(ModelWish(PLAIN), "noise.png", ("VTranM",), 3)
VITA = {"k": 4, "tau": 2, "phi": -0.5, "alpha": 1.5, "beta": 0.05}


def made(networks: Networks, **changes: Any) -> Explained:
    """The maps of the image, of the wish with some changes."""
    wish = replace(WISH, **changes)
    return explained(wish, networks.get(wish.model), IMAGE)


def decoded(address: str) -> Image.Image:
    """The picture in the address of itself."""
    return Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))
