"""What `viewer.js` draws: the image, its maps and their colour bars, as values that JSON can hold."""

from __future__ import annotations

import base64
import io
from typing import Any

import torch
from matplotlib.colors import to_hex
from PIL import Image

from captum_astro import viz
from captum_astro.app.explained import Explained
from captum_astro.explaining.result import Result
from captum_astro.viz.colours import Scale, colours

_SIDE = 1024  # pixels of the shown image's long side
_STOPS = 9  # colours of a bar


def shown(image: Image.Image) -> dict[str, Any]:
    """An image without maps."""
    return {**_picture(image), "box": [0, 0, *image.size], "grid": None, "groups": [], "token": None, "notes": []}


def panels(explained: Explained) -> dict[str, Any]:
    """An image with its maps: a group for each method, with the map of each class and their difference.

    Args:
        explained: The maps.
    """
    by_method: dict[str, list[Result]] = {}
    for result in explained.results:
        by_method.setdefault(result.options["method"], []).append(result)
    groups = [{"title": method, "panels": _of_method(results)} for method, results in by_method.items()]
    crop = explained.given.crop
    return {
        **_picture(explained.given.image),
        "box": list(crop.box),
        "crop": "" if crop.whole else f"Outlined: what the model sees ({crop.share:.0%}).",
        "grid": explained.grid,
        "classes": [f"{one.short} ({one.probability:.1%})" for one in explained.results[0].classes],
        "groups": groups,
        "token": None,
        "notes": explained.notes,
    }


def token_panel(explained: Explained, row: int, column: int) -> dict[str, Any]:
    """The row of the contribution map at a patch.

    Args:
        explained: The maps.
        row: The patch's row.
        column: Its column.

    Raises:
        ValueError: If there is no such patch.
        UnsupportedModelError: If VTranM cannot explain the model.
    """
    found, place = explained.contributions.at(row, column)
    title = f"What final token ({place[0]}, {place[1]}) takes from each patch"
    return {
        **_layer(found, f"{title}: {explained.targets[0].short}", None),
        "outline": [place[0], place[1], *explained.contributions.final],
    }


def _of_method(results: list[Result]) -> list[dict[str, Any]]:
    made = [_layer(one.attributions[0], one.title, one.patch) for one in results]
    if len(results) == 2:
        a, b = results
        title = f"{a.target.short} minus {b.target.short}, each divided by its limit"
        made.append(_layer(_relative(a) - _relative(b), title, a.patch))
    return made


def _relative(result: Result) -> torch.Tensor:
    """A map in units of its own limit: maps of different classes have different scales."""
    values = result.attributions[0].sum(0)
    return values / viz.layer(values, patch=result.patch).scale.high


def _layer(values: torch.Tensor, title: str, patch: Any) -> dict[str, Any]:
    picture, scale = viz.layer(values, patch=patch)
    return {"title": title, "layer": encoded(picture), "smooth": patch is not None, "bar": _bar(scale)}


def _bar(scale: Scale) -> dict[str, Any]:
    cmap = colours(scale.signed)
    stops = [to_hex(cmap(step / (_STOPS - 1))) for step in range(_STOPS)]
    ticks = [scale.low, 0.0, scale.high] if scale.signed else [0.0, scale.high]
    return {"colours": stops, "ticks": [f"{tick:.2g}" for tick in ticks], "reason": f"limit: {scale.reason}"}


def _picture(image: Image.Image) -> dict[str, Any]:
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE))
    return {"image": encoded(small), "width": image.width, "height": image.height}


def encoded(picture: Image.Image) -> str:
    """A picture as the address of itself."""
    held = io.BytesIO()
    opaque = picture.mode == "RGB" and max(picture.size) > 256
    picture.save(held, "JPEG" if opaque else "PNG", **({"quality": 92} if opaque else {}))
    kind = "jpeg" if opaque else "png"
    return f"data:image/{kind};base64,{base64.b64encode(held.getvalue()).decode()}"
