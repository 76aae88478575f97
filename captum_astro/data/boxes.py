"""Boxes drawn by hand, as maps of where people look, for those without ClickMe."""

from __future__ import annotations

import csv as csv_format
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from captum_astro.data.human import HumanSample
from captum_astro.data.images import open_image

_EDGES = ("x0", "y0", "x1", "y1")
_COLUMNS = ("file", "label", *_EDGES)


class _Box(NamedTuple):
    x0: float
    y0: float
    x1: float
    y1: float
    row: int


class Boxes(Dataset[HumanSample]):
    r"""A folder of images with a table of boxes; the human map is 1 inside the boxes of an image and 0 outside.

    The table is a CSV with the columns ``file,label,x0,y0,x1,y1`` in any order; others are passed over. ``file`` is
    relative to the folder. A box is in pixels of the image as displayed, that is after the camera's rotation, with the
    origin at the top left: a pixel belongs to it if its centre does, so ``0,0,W,H`` is the whole of a W x H image. One
    file may have several rows, with one label among them; ``label`` may be empty. Samples come in the order in which
    the files first appear. ``human`` has sharp edges: ``prepare_heatmap`` blurs it.

    Args:
        folder: Where the images are.
        csv: The table, relative to the folder.

    Raises:
        FileNotFoundError: If there is no such table, or a file in it does not exist.
        ValueError: If a column is missing, or a row has no number where one belongs, an empty box, or another label
            than an earlier row of the same file. A box that leaves its image raises when that sample is read.
            Messages about rows name the line of the table.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (6, 4)).save(f"{folder}/a.png")
        ...     _ = Path(folder, "boxes.csv").write_text("file,label,x0,y0,x1,y1\na.png,7,1,0,3,2\n")
        ...     sample = Boxes(folder)[0]
        >>> sample.name, sample.label, sample.image.shape, sample.human.sum()
        ('a.png', 7, torch.Size([3, 4, 6]), tensor(4.))
    """

    def __init__(self, folder: Path | str, csv: Path | str = "boxes.csv") -> None:
        self._folder = Path(folder)
        self._table = self._folder / csv
        self._boxes: dict[str, list[_Box]] = {}
        self._labels: dict[str, int | None] = {}
        self._read()
        self._names = list(self._boxes)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> HumanSample:
        if not 0 <= index < len(self._names):
            raise IndexError(f"There are {len(self._names)} images, numbered from 0; {index} was asked for.")
        name = self._names[index]
        pixels = np.array(open_image(self._folder / name))
        height, width = pixels.shape[:2]
        human = torch.zeros(height, width)
        for box in self._boxes[name]:
            if min(box.x0, box.y0) < 0 or box.x1 > width or box.y1 > height:
                raise self._error(box.row, f"{_written(box)} is not inside {name}, which is {width} x {height} pixels")
            (left, right), (top, bottom) = _centres(box.x0, box.x1), _centres(box.y0, box.y1)
            human[top:bottom, left:right] = 1
        image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
        return HumanSample(image, human, self._labels[name], name)

    def _read(self) -> None:
        if not self._table.is_file():
            raise FileNotFoundError(f"{self._table}: there is no such table.")
        with open(self._table, newline="", encoding="utf-8-sig") as file:
            reader = csv_format.DictReader(file, skipinitialspace=True)
            try:
                missing = [column for column in _COLUMNS if column not in (reader.fieldnames or ())]
                if missing:
                    there = ", ".join(reader.fieldnames or ()) or "nothing"
                    raise ValueError(f"{self._table}: row 1: no column {', '.join(missing)}; there is {there}.")
                for row in reader:
                    self._add(row, reader.line_num)
            except (csv_format.Error, UnicodeDecodeError) as error:
                raise ValueError(
                    f"{self._table}: after row {reader.line_num}: not a CSV in UTF-8 ({error})."
                ) from error
        if not self._boxes:
            raise ValueError(f"{self._table}: no row below the header.")

    def _add(self, row: dict[str, str | None], line: int) -> None:
        entry = {column: (row[column] or "").strip() for column in _COLUMNS}
        if not entry["file"]:
            raise self._error(line, "no file is named")
        name = Path(entry["file"]).as_posix()
        if name not in self._boxes and not (self._folder / name).is_file():
            raise FileNotFoundError(f"{self._table}: row {line}: there is no file {self._folder / name}.")
        x0, y0, x1, y1 = (self._number(entry[edge], edge, line) for edge in _EDGES)
        box = _Box(x0, y0, x1, y1, line)
        for low, high in ((box.x0, box.x1), (box.y0, box.y1)):
            first, end = _centres(low, high)
            if first >= end:
                raise self._error(line, f"{_written(box)} is empty: x0 < x1 and y0 < y1 with a pixel between them")
        self._boxes.setdefault(name, []).append(box)
        label = self._label(entry["label"], line)
        known = self._labels.setdefault(name, label)
        if known is None:
            self._labels[name] = label
        elif label not in (None, known):
            raise self._error(line, f"{name} has label {label} here and {known} in an earlier row")

    def _label(self, text: str, line: int) -> int | None:
        if not text:
            return None
        try:
            label = int(text)
        except ValueError as error:
            raise self._error(line, f"label is {text!r}, not a whole number") from error
        if label < 0:
            raise self._error(line, f"label is {label}, and classes are numbered from 0")
        return label

    def _number(self, text: str, column: str, line: int) -> float:
        try:
            number = float(text)
        except ValueError as error:
            raise self._error(line, f"{column} is {text!r}, not a number") from error
        if not math.isfinite(number):
            raise self._error(line, f"{column} is {text!r}, not a number")
        return number

    def _error(self, line: int, what: str) -> ValueError:
        return ValueError(f"{self._table}: row {line}: {what}.")


def _centres(low: float, high: float) -> tuple[int, int]:
    """The pixels whose centres are in [low, high): the first, and one past the last."""
    return math.ceil(low - 0.5), math.ceil(high - 0.5)


def _written(box: _Box) -> str:
    return f"the box {box.x0:g},{box.y0:g},{box.x1:g},{box.y1:g}"
