"""Tables of labelled samples in parquet files, as published by Hugging Face datasets."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_astro.data.files import LARGEST, DataError, regular_file
from captum_astro.extras import needed

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = ["DataError", "batches", "column_of", "labels", "opened", "parquet_files", "read_columns"]

_ROWS = 256  # unpacked at a time
_OBJECTS = 256  # bytes that Python needs for the values and the place of a row, if not more


def parquet_files(path: Path, split: str, name: str) -> list[Path]:
    """The files of a split.

    Args:
        path: A folder that contains them, also in its ``data`` or ``plain_text`` folder; or the split's own file; or
            the training file, next to which the test file has the same name except for that word.
        split: ``"train"`` or ``"test"``, a word in the file's name.
        name: Name of the dataset. Files whose name begins with it are preferred, if a folder contains several datasets.

    Returns:
        At least one file, in order of name.

    Raises:
        DataError: If there is none.
    """
    word = re.compile(rf"(^|[._-]){split}([._-]|$)")
    if path.exists() and not path.is_dir():
        regular_file(path)
        if word.search(path.stem):
            return [path]
        if "train" not in path.stem:
            raise DataError(f"{path}: a file is given with '{split}' or with 'train' in its name, or its folder.")
        file = path if split == "train" else path.with_name(path.name.replace("train", split))
        if not file.is_file():
            raise DataError(f"{file}: there is no such file beside {path.name}.")
        return [file]
    if not path.is_dir():
        raise DataError(f"{path}: there is no such file or folder.")
    inside = [
        file
        for folder in (path, path / "data", path / "plain_text")
        for file in sorted(folder.glob("*.parquet"))
        if file.is_file()
    ]
    found = [file for file in inside if word.search(file.stem)]
    found = [file for file in found if file.stem.startswith(name)] or [
        file for file in found if not re.match(r"[a-z]+[0-9]*[._-]" + split, file.stem)
    ]
    if not found:
        raise DataError(
            f"{path}: no parquet file of the {split} split here, such as {name}_{split}.parquet or "
            f"{split}-00000-of-00001.parquet."
        )
    return found


def read_columns(files: list[Path], wanted: dict[str, tuple[str, ...]]) -> tuple[dict[str, list[Any]], list[str]]:
    """Concatenated columns of several files.

    Args:
        files: Parquet files.
        wanted: For each column the names that it may have in the file, in order of preference.

    Returns:
        For each column the values, and for each row its location: ``file, row 7`` from 0.

    Raises:
        DataError: If a file is damaged, lacks a column or has two of that name, or unpacks to more than `LARGEST`; or
            there are no rows.
        MissingExtraError: If pyarrow is not installed.
    """
    values: dict[str, list[Any]] = {name: [] for name in wanted}
    places: list[str] = []
    for file in files:
        row = 0
        with opened(file) as table:
            columns = {name: column_of(file, table.schema_arrow, names) for name, names in wanted.items()}
            for batch in batches(file, table, list(columns.values())):
                for name, column in columns.items():
                    values[name] += batch.column(column).to_pylist()
                places += [f"{file}, row {row + index}" for index in range(batch.num_rows)]
                row += batch.num_rows
    if not places:
        raise DataError(f"{files[0]}: there are no rows.")
    return values, places


@contextmanager
def opened(file: Path) -> Iterator[pq.ParquetFile]:
    """A parquet file; errors of pyarrow inside the block become a DataError.

    Raises:
        DataError: If the file is damaged, or not a regular one.
        MissingExtraError: If pyarrow is not installed.
    """
    arrow, parquet = needed("A parquet file", "pyarrow"), needed("A parquet file", "pyarrow.parquet")
    try:
        with parquet.ParquetFile(regular_file(file)) as table:
            yield table
    except DataError:
        raise
    except (arrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise DataError(f"{file}: not a parquet file, or damaged ({str(error)[:150]}).") from error


def batches(
    file: Path, table: pq.ParquetFile, columns: list[str], groups: list[int] | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of an `opened` file, some at a time.

    Args:
        file: Its path, for messages.
        table: The file.
        columns: The columns to read.
        groups: The row groups to read; by default all.

    Raises:
        DataError: If they unpack to more than `LARGEST`.
    """
    size = 0
    for batch in table.iter_batches(_ROWS, row_groups=groups, columns=columns, use_threads=False):
        size += batch.nbytes + _OBJECTS * batch.num_rows
        if size > LARGEST:  # a repeated value takes no space in the file
            raise DataError(f"{file}: more than {LARGEST >> 20} MiB when unpacked.")
        yield batch


def column_of(file: Path, schema: pa.Schema, names: tuple[str, ...]) -> str:
    """The first of the names that is a column.

    Raises:
        DataError: If none is, or several columns have that name.
    """
    name = next((name for name in names if name in schema.names), None)
    if name is None:
        raise DataError(f"{file}: no column {' or '.join(names)}, only {', '.join(schema.names)[:200]}.")
    if schema.names.count(name) > 1:
        raise DataError(f"{file}: {schema.names.count(name)} columns are named {name}: which is it?")
    return name


def labels(values: list[Any], places: list[str], classes: int | None = None) -> list[int]:
    """Validate class numbers.

    Args:
        values: As read.
        places: The location of each, for messages.
        classes: Their number; by default one more than the largest label.

    Raises:
        DataError: If one is not a whole number from 0 to ``classes - 1``.
    """
    for value, place in zip(values, places, strict=True):
        if (
            not isinstance(value, int)
            or isinstance(value, bool)
            or value < 0
            or (classes is not None and value >= classes)
        ):
            upto = "" if classes is None else f" up to {classes - 1}"
            raise DataError(f"{place}: the label is {reprlib.repr(value)[:80]}, not a whole number from 0{upto}.")
    return values
