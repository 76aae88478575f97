"""Figures as files, with a record of what they show."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_astro.storage import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf", "svg")
_LEAST, _MOST = 150, 600  # dots per inch
_PIXELS = 16e6  # of a picture
_COMPRESSION = 4  # of a PNG: half the time of 6, which is Pillow's own, for a file that is a tenth larger


def dots_per_inch(figure: Figure, wanted: float) -> float:
    """A resolution for a figure: what is wanted, from 150 to 600 and up to 16 million pixels.

    Args:
        figure: The figure.
        wanted: The resolution at which its images have as many pixels as their files.
    """
    width, height = figure.get_size_inches()
    return min(max(wanted, _LEAST), _MOST, max(_LEAST / 2, math.sqrt(_PIXELS / (width * height))))


def save(figure: Figure, file: Path, record: Mapping[str, Any], dpi: float = _LEAST) -> None:
    """Save a figure, with a record in its metadata and as JSON beside it.

    A PDF and an SVG hold the images at their own resolution, and text as text that can be searched.

    Args:
        figure: The figure.
        file: Ends in ``.png``, ``.pdf`` or ``.svg``.
        record: What the figure shows, which JSON can hold.
        dpi: Dots per inch of a PNG.

    Raises:
        ValueError: If the name has another ending.
        OSError: If a file cannot be written, or is no regular file.

    Example:
        >>> import tempfile
        >>> from matplotlib.figure import Figure
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(Figure(), Path(folder, "a.pdf"), {"method": "LRP"})
        ...     json.loads(Path(folder, "a.pdf.json").read_text())
        {'method': 'LRP'}
    """
    from matplotlib import rc_context

    form = file.suffix[1:].lower()
    if form not in FORMATS:
        raise ValueError(f"{file}: the name of a picture must end in .{', .'.join(FORMATS[:-1])} or .{FORMATS[-1]}.")
    text = as_json(record)
    if form != "png":
        for image in (image for ax in figure.axes for image in ax.images):
            image.set_interpolation("none")  # its own pixels, not those of the figure's resolution
    # fixed identifiers and no date: the same figure is the same file
    with rc_context({"pdf.fonttype": 42, "svg.fonttype": "none", "svg.hashsalt": "captum_astro"}):
        options: dict[str, Any] = {"pil_kwargs": {"compress_level": _COMPRESSION}} if form == "png" else {}
        write_whole(file, partial(figure.savefig, format=form, dpi=dpi, metadata=_metadata(form, text), **options))
    save_record(file, record)


def save_record(file: Path, record: Mapping[str, Any]) -> None:
    """Save the record of a file beside it: its name, followed by ``.json``.

    Raises:
        OSError: As `save`.
    """
    write_whole(file.with_name(f"{file.name}.json"), partial(_write, as_json(record) + "\n"))


def as_json(record: Mapping[str, Any]) -> str:
    """A record as text; what JSON does not know, as its own text."""
    return json.dumps(record, indent=1, default=str)


def _write(text: str, file: Path) -> None:
    file.write_text(text, encoding="utf-8")


def _metadata(form: str, text: str) -> dict[str, Any]:
    forms: dict[str, dict[str, Any]] = {
        "png": {"Description": text},
        "pdf": {"Subject": text, "CreationDate": None},
        "svg": {"Description": text, "Date": None},
    }
    return forms[form]
