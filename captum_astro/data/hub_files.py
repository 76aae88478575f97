"""Image classification in the Hugging Face Hub's Parquet files, ``data/train-00000-of-00002.parquet``."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_astro.data.files import DataError
from captum_astro.data.tables import batches, column_of, opened, read_columns
from captum_astro.extras import needed

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE = ("image", "img")
LABEL = ("label", "labels", "fine_label")
_PREFERRED = ("validation", "test")  # the Hub's test splits often have no labels
_FILE = re.compile(r"(?P<split>\w+(?:\.\w+)*?)(?:-(?P<number>\d{5})-of-(?P<count>\d{5})(?:-[0-9a-f]{16})?)?")


@dataclass(frozen=True)
class LabelledCells:
    """The rows of a split, whose images are not yet read.

    Attributes:
        split: Its name.
        cells: For each row the image: a dictionary with the encoded file, ``bytes``.
        labels: For each row the class; -1 or None if unknown.
        places: For each row its location, for messages.
        classes: The names of the classes; None if the data has none.
    """

    split: str
    cells: Sequence[Any]
    labels: list[Any]
    places: list[str]
    classes: list[str] | None


def chosen_split(split: str | None, there: Sequence[str], place: str) -> str:
    """The split that is asked for; by default ``validation``, otherwise ``test``, otherwise the only one.

    Raises:
        DataError: If there is no such split, or several and none is asked for.

    Example:
        >>> chosen_split(None, ["train", "test"], "pets"), chosen_split("train", ["train", "test"], "pets")
        ('test', 'train')
    """
    named = ", ".join(there)[:200]
    if split is not None:
        if split not in there:
            raise DataError(f"{place}: no split {split!r}, only {named}.")
        return split
    found = next((name for name in _PREFERRED if name in there), None)
    if found is None and len(there) > 1:
        raise DataError(f"{place}: several splits, {named}. Name one, as in hf:{place}:{there[0]}.")
    return found or there[0]


def read_files(path: Path, split: str | None) -> LabelledCells:
    """A split in a folder or a file; the labels are read at once, the images when they are asked for.

    Args:
        path: The folder, which contains the files or their folder ``data``; or one file.
        split: The split; see `chosen_split`.

    Raises:
        DataError: If there is no such file or split, one file of several is missing, a file is damaged, or a column
            is missing or of another type.
        MissingExtraError: If pyarrow is not installed.
    """
    splits = {_split_of(path): [path]} if not path.is_dir() else _splits(path)
    chosen = chosen_split(split, list(splits), str(path))
    files = splits[chosen]
    cells = _Images(files)
    values, places = read_columns(files, {"label": LABEL})
    if len(cells) != len(places):
        raise DataError(f"{files[0]}: damaged: {len(cells)} rows announced, {len(places)} found.")
    return LabelledCells(chosen, cells, values["label"], places, cells.classes)


def _splits(folder: Path) -> dict[str, list[Path]]:
    """The files of each split, in order."""
    files = next((found for inside in ("data", "") if (found := sorted((folder / inside).glob("*.parquet")))), [])
    if not files:
        raise DataError(f"{folder}: no parquet files in data/ or here, such as data/train-00000-of-00001.parquet.")
    splits = defaultdict(list)
    for file in files:
        splits[_split_of(file)].append(file)
    for inside in splits.values():
        _check_complete(inside)
    return splits


def _split_of(file: Path) -> str:
    match = _FILE.fullmatch(file.stem)
    if match is None:
        raise DataError(
            f"{file}: the name says no split. Call it SPLIT.parquet or SPLIT-00000-of-00001.parquet, as the Hub does."
        )
    return match["split"]


def _check_complete(files: list[Path]) -> None:
    """A part of a split is no sample of it: refused, unless the file is named."""
    given = [match for file in files if (match := _FILE.fullmatch(file.stem))]
    numbers = [match["number"] for match in given]
    wanted = [None] if numbers[0] is None else [f"{i:05}" for i in range(int(given[0]["count"]))]
    if numbers != wanted or len({match["count"] for match in given}) > 1:
        raise DataError(
            f"{files[0].parent}: the split {given[0]['split']!r} is not complete, or there twice: "
            f"{', '.join(file.name for file in files)[:200]}. Add what is missing, or name one file: hf:{files[0]}."
        )


class _Images(Sequence[Any]):
    """The column of images in several files; one row group at a time is in memory."""

    def __init__(self, files: list[Path]) -> None:
        self.classes: list[str] | None = None
        self._groups: list[tuple[Path, int, str]] = []
        self._ends: list[int] = []  # of each group, one past its last row
        self._read: tuple[int, list[pa.Array]] | None = None
        count = 0
        for file in files:
            with opened(file) as table:
                column = _image_column(file, table.schema_arrow)
                self.classes = _class_names(file, table.schema_arrow) or self.classes
                for group in range(table.num_row_groups):
                    count += table.metadata.row_group(group).num_rows
                    self._groups.append((file, group, column))
                    self._ends.append(count)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: Any) -> Any:
        number = bisect_right(self._ends, index)
        row = index - (self._ends[number - 1] if number else 0)
        read = self._read  # other threads may replace it meanwhile
        if read is None or read[0] != number:
            read = self._read = number, self._group(*self._groups[number])
        for part in read[1]:
            if row < len(part):
                return part[row].as_py()
            row -= len(part)
        raise DataError(f"{self._groups[number][0]}: damaged: it holds fewer rows than it announces.")

    def _group(self, file: Path, group: int, column: str) -> list[pa.Array]:
        with opened(file) as table:
            return [batch.column(column) for batch in batches(file, table, [column], [group])]


def _image_column(file: Path, schema: pa.Schema) -> str:
    arrow = needed("A parquet file", "pyarrow")
    name = column_of(file, schema, IMAGE)
    kind = schema.field(name).type
    if not arrow.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise DataError(f"{file}: the column {name} is {str(kind)[:100]}, not a struct of bytes and path.")
    label = schema.field(column_of(file, schema, LABEL)).type
    if not arrow.types.is_integer(label):
        raise DataError(f"{file}: the labels are {str(label)[:100]}, not whole numbers.")
    return name


def _class_names(file: Path, schema: pa.Schema) -> list[str] | None:
    """The classes that the Hub's metadata of the file names."""
    written = (schema.metadata or {}).get(b"huggingface")
    if written is None:
        return None
    try:
        features = json.loads(written)["info"]["features"]
        names = features[column_of(file, schema, LABEL)].get("names")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{file}: the metadata under 'huggingface' is damaged.") from error
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise DataError(f"{file}: the class names in its metadata are not a list of names.")
    return names
