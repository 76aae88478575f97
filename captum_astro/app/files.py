"""What can be downloaded: the picture, the arrays and the record of the maps. Made on demand, and never on the disk."""

from __future__ import annotations

import base64
import io
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from captum_astro.app.explained import Explained
from captum_astro.viz.saving import as_json

KINDS = {"picture": ("png", "image/png"), "arrays": ("npz", "application/zip"), "record": ("json", "application/json")}


def download(explained: Explained, kind: str) -> dict[str, str]:
    """A file for the browser to save: its name, its type and its bytes in base64.

    Args:
        explained: The maps.
        kind: One of `KINDS`.
    """
    ending, mime = KINDS[kind]
    made = {"picture": _picture, "arrays": _arrays, "record": _record}[kind](explained)
    stem = re.sub(r"[^\w-]+", "_", Path(explained.wish.image).stem)
    return {"name": f"{stem}_explained.{ending}", "type": mime, "data": base64.b64encode(made).decode()}


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
