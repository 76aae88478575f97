"""What can be downloaded: the picture, the arrays and the record of the maps. Made on demand; none is kept."""

from __future__ import annotations

import base64
import io
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from captum_astro.app.explained import Explained
from captum_astro.viz.saving import as_json


class Kind(NamedTuple):
    """A kind of file: the ending of its name, its MIME type, and what makes its bytes."""

    ending: str
    mime: str
    make: Callable[[Explained], bytes]


def download(explained: Explained, kind: str) -> dict[str, str]:
    """A file for the browser to save: its name, its type and its bytes in base64.

    Args:
        explained: The maps.
        kind: One of `KINDS`.
    """
    file = KINDS[kind]
    stem = re.sub(r"[^\w-]+", "_", Path(explained.wish.image).stem)
    data = base64.b64encode(file.make(explained)).decode()
    return {"name": f"{stem}_explained.{file.ending}", "type": file.mime, "data": data}


def _picture(explained: Explained) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "picture.png")
        explained.results.save(file, columns=5)
        return file.read_bytes()


def _arrays(explained: Explained) -> bytes:
    """The raw map of each result, ``(H, W)``, named by method and class, as the command writes it."""
    held: dict[str, Any] = {
        f"{one.options['method']}_class{one.target.index}": one.attributions[0].sum(0).float().cpu().numpy()
        for one in explained.results
    }
    file = io.BytesIO()
    np.savez_compressed(file, **held)
    return file.getvalue()


def _record(explained: Explained) -> bytes:
    return (as_json(explained.results.record) + "\n").encode()


KINDS = {
    "picture": Kind("png", "image/png", _picture),
    "arrays": Kind("npz", "application/zip", _arrays),
    "record": Kind("json", "application/json", _record),
}
