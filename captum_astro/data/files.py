"""Files of a dataset: regular ones only, and no more of them in memory than a sample can need."""

from __future__ import annotations

import stat
from pathlib import Path

LARGEST = 1 << 30
"""Bytes of a file that is read as a whole: 1 GiB."""
LARGEST_ARRAY = 1 << 28
"""Bytes of an array that is read from a file, of which a small file can announce any number: 256 MiB."""


class DataError(ValueError):
    """Data that is missing, or in a format that cannot be read."""


def regular_file(path: Path | str) -> Path:
    """The path, if it is a regular file or a link to one: a FIFO or a device could be read without end.

    Raises:
        DataError: If there is no such file, or it is something else.

    Example:
        >>> regular_file("/dev/null")
        Traceback (most recent call last):
            ...
        captum_astro.data.files.DataError: /dev/null: a device, a FIFO or a socket, where a regular file belongs.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror}).") from error
    if stat.S_ISREG(mode):
        return path
    kind = "a folder" if stat.S_ISDIR(mode) else "a device, a FIFO or a socket"
    raise DataError(f"{path}: {kind}, where a regular file belongs.")


def read_whole(path: Path | str) -> bytes:
    """All bytes of a regular file of at most `LARGEST`.

    Raises:
        DataError: As `regular_file`, or if the file is larger or cannot be read.
    """
    path = regular_file(path)
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path}: more than {LARGEST >> 20} MiB, where one sample or one list belongs.")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
