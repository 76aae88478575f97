"""A folder of images with a CSV of their labels and bounding boxes."""

from __future__ import annotations

import csv as csv_format
import io
import math
from pathlib import Path
from typing import NamedTuple

import torch

from captum_astro.data.files import read_whole
from captum_astro.data.images import read_pixels
from captum_astro.data.samples import checked

_EDGES = ("x0", "y0", "x1", "y1")
_FIRST = ("file", "label")


class Box(NamedTuple):
    """A box, and its row in the table."""

    x0: float
    y0: float
    x1: float
    y1: float
    row: int


class Marked(NamedTuple):
    """One image of a table: ``image`` ``(3, H, W)`` uint8, ``inside`` ``(H, W)`` bool or None if it has no box."""

    image: torch.Tensor
    inside: torch.Tensor | None
    label: int | None
    name: str


class ImageTable:
    """The rows of ``file,label,x0,y0,x1,y1`` by file, in the order in which the files first appear.

    Args:
        folder: The folder of the images.
        csv: The table, relative to the folder. Other columns are ignored.
        boxes: Whether every row must have a box; otherwise the four columns may be missing, or empty in a row.

    Raises:
        FileNotFoundError: If there is no such table, or a file in it does not exist.
        ValueError: If a column is missing, or a row is invalid. Messages about rows name the line of the table.
    """

    def __init__(self, folder: Path | str, csv: Path | str, *, boxes: bool) -> None:
        self._folder = Path(folder)
        self._table = self._folder / csv
        self._all_boxes = boxes
        self._boxes: dict[str, list[Box]] = {}
        self._labels: dict[str, int | None] = {}
        self._read()
        self._names = list(self._boxes)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Marked:
        """Read an image.

        Raises:
            ImageError: If the file is damaged.
            ValueError: If a box leaves its image.
        """
        name = self._names[checked(index, len(self))]
        image = read_pixels(self._folder / name)
        height, width = image.shape[1:]
        inside = torch.zeros(height, width, dtype=torch.bool) if self._boxes[name] else None
        for box in self._boxes[name]:
            if min(box.x0, box.y0) < 0 or box.x1 > width or box.y1 > height:
                raise self._error(box.row, f"{_written(box)} is not inside {name}, which is {width} x {height} pixels")
            (left, right), (top, bottom) = _centres(box.x0, box.x1), _centres(box.y0, box.y1)
            if inside is not None:
                inside[top:bottom, left:right] = True
        return Marked(image, inside, self._labels[name], name)

    def _read(self) -> None:
        if not self._table.exists():
            raise FileNotFoundError(f"{self._table}: there is no such table.")
        with io.TextIOWrapper(io.BytesIO(read_whole(self._table)), newline="", encoding="utf-8-sig") as file:
            reader = csv_format.DictReader(file, skipinitialspace=True)
            try:
                there = reader.fieldnames or ()
                with_boxes = self._all_boxes or any(edge in there for edge in _EDGES)
                missing = [column for column in _FIRST + _EDGES * with_boxes if column not in there]
                if missing:
                    named = ", ".join(there)[:200] or "nothing"
                    raise ValueError(f"{self._table}: row 1: no column {', '.join(missing)}; there is {named}.")
                for row in reader:
                    self._add(row, reader.line_num)
            except (csv_format.Error, UnicodeDecodeError) as error:
                raise ValueError(
                    f"{self._table}: after row {reader.line_num}: not a CSV in UTF-8 ({error})."
                ) from error
        if not self._boxes:
            raise ValueError(f"{self._table}: no row below the header.")

    def _add(self, row: dict[str, str | None], line: int) -> None:
        entry = {column: (row.get(column) or "").strip() for column in _FIRST + _EDGES}
        if not entry["file"]:
            raise self._error(line, "no file is named")
        name = Path(entry["file"]).as_posix()
        if name not in self._boxes and not _is_file(self._folder / name):
            raise FileNotFoundError(f"{self._table}: row {line}: there is no file {self._folder / name[:200]}.")
        boxes = self._boxes.setdefault(name, [])
        if self._all_boxes or any(entry[edge] for edge in _EDGES):
            boxes.append(self._box(entry, line))
        label = self._label(entry["label"], line)
        known = self._labels.setdefault(name, label)
        if known is None:
            self._labels[name] = label
        elif label not in (None, known):
            raise self._error(line, f"{name} has label {label} here and {known} in an earlier row")

    def _box(self, entry: dict[str, str], line: int) -> Box:
        x0, y0, x1, y1 = (self._number(entry[edge], edge, line) for edge in _EDGES)
        box = Box(x0, y0, x1, y1, line)
        for low, high in ((box.x0, box.x1), (box.y0, box.y1)):
            first, end = _centres(low, high)
            if first >= end:
                raise self._error(line, f"{_written(box)} is empty: x0 < x1 and y0 < y1 with a pixel between them")
        return box

    def _label(self, text: str, line: int) -> int | None:
        if not text:
            return None
        try:
            label = int(text)
        except ValueError as error:
            raise self._error(line, f"label is {text[:40]!r}, not a whole number") from error
        if label < 0:
            raise self._error(line, f"label is {label}, and classes are numbered from 0")
        return label

    def _number(self, text: str, column: str, line: int) -> float:
        try:
            number = float(text)
        except ValueError as error:
            raise self._error(line, f"{column} is {text[:40]!r}, not a number") from error
        if not math.isfinite(number):
            raise self._error(line, f"{column} is {text[:40]!r}, not a number")
        return number

    def _error(self, line: int, what: str) -> ValueError:
        return ValueError(f"{self._table}: row {line}: {what}.")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long
        return False


def _centres(low: float, high: float) -> tuple[int, int]:
    """The pixels whose centres are in [low, high): the first, and one past the last."""
    return math.ceil(low - 0.5), math.ceil(high - 0.5)


def _written(box: Box) -> str:
    return f"the box {box.x0:g},{box.y0:g},{box.x1:g},{box.y1:g}"
