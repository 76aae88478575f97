"""Results stored in a folder: atomic file writes, tables, and a record of the run that the folder belongs to."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from pandas import DataFrame

RECORD = "run.json"
PART = ".captum-astro.part"  # how temporary names end
_FORMULA = re.compile(r"[=+@\t\r\n\uff1d\uff0b\uff0d\uff20]|-.")  # the last four are full-width forms
_OLD = 3600.0  # seconds
_LARGEST = 16 * 2**20  # bytes of a JSON file
_KINDS = (
    (stat.S_ISLNK, "link"),
    (stat.S_ISDIR, "folder"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
    (stat.S_ISFIFO, "pipe"),
)


def write_whole(file: Path, write: Callable[[Path], object]) -> None:
    """Write a file atomically: under a temporary name, flushed to disk, then renamed; complete or absent.

    Args:
        file: The file. An existing one is replaced only if it is a regular file; see `check_replaceable`.
        write: Function that writes to the path it receives, an empty file in the same folder.

    Raises:
        OSError: If it cannot be written; the error names the file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(Path(folder) / "a.txt", lambda part: part.write_text("whole"))
        ...     [file.name for file in Path(folder).iterdir()]
        ['a.txt']
    """
    _write(file, write, os.replace)


def check_replaceable(file: Path) -> None:
    """Check that a file is absent or a regular file, so that no link is followed and no device replaced.

    Raises:
        OSError: If it is anything else.

    Example:
        >>> check_replaceable(Path("/dev/null"))
        Traceback (most recent call last):
        OSError: /dev/null is a device, and only a regular file is replaced. Choose another name.
    """
    try:
        mode = os.lstat(file).st_mode
    except OSError:
        return  # it does not exist, or writing will report the error
    if not stat.S_ISREG(mode):
        kind = next((kind for is_kind, kind in _KINDS if is_kind(mode)), "special file")
        raise OSError(f"{file} is a {kind}, and only a regular file is replaced. Choose another name.")


def write_table(file: Path, table: DataFrame) -> None:
    """Write a table `as_csv`, atomically.

    Raises:
        OSError: As `write_whole`.
    """
    text = as_csv(table)
    write_whole(file, lambda part: part.write_bytes(text.encode()))


def as_csv(table: DataFrame) -> str:
    """A table as CSV (RFC 4180) of which no spreadsheet takes a text for a formula.

    Names of files may be anyone's: an apostrophe is put before one that begins like a formula. A minus sign alone is
    left as it is: it means "none", and is no formula.

    Source:
        OWASP, "CSV Injection".

    Example:
        >>> import pandas as pd
        >>> as_csv(pd.DataFrame({"name": ["=1+1", "-"], "value": [-1, 0]})).splitlines()
        ['name,value', "'=1+1,-1", '-,0']
    """
    inert = table.map(lambda cell: f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell)
    return str(inert.to_csv(index=False, lineterminator="\r\n"))  # so that a single \r in a text is quoted


def read_record(file: Path) -> dict[str, Any]:
    """The record of the run that a folder's results belong to.

    Raises:
        ValueError: If the file is damaged.
        OSError: If it cannot be read.
    """
    found = read_json(file)
    if found is None:
        raise ValueError(f"{file} is damaged. Choose another folder, or delete this one.")
    return found


def read_json(file: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None if it holds anything else.

    Raises:
        OSError: If it cannot be read.
    """
    found = file.stat()
    if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST:  # a pipe would be waited for
        return None
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None
    return held if isinstance(held, dict) else None


def begin(
    folder: Path, described: Mapping[str, Any], otherwise: str = "delete this one", free: Collection[str] = ()
) -> None:
    """Create a folder for the results of one run, or check that it belongs to that run.

    Of several processes that begin in a new folder, one writes the record, and all are compared with it.

    Args:
        folder: The folder.
        described: What the results depend on, JSON-serialisable; nested names are joined with a dot in messages.
        otherwise: The alternative to choosing another folder, for the message.
        free: Names in ``described`` that may differ.

    Raises:
        ValueError: If the folder holds results of a different run; the message lists the differences.
        OSError: If it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    record = folder / RECORD
    if not record.exists():
        text = json.dumps(described, indent=1) + "\n"
        _write(record, lambda to: to.write_text(text, encoding="utf-8"), _put_if_absent)
    changed = [name for name in differences(read_record(record), described) if name not in free]
    if changed:
        raise ValueError(
            f"{folder} holds results of another run ({', '.join(changed)} differ). Choose another folder, or "
            f"{otherwise}."
        )


def differences(before: Any, now: Any) -> list[str]:
    """The sorted names of all differences, with ``a.b`` for nested names; JSON lists and tuples are equal.

    Example:
        >>> differences({"steps": 20, "versions": {"torch": "2.6"}}, {"versions": {"torch": "2.7"}})
        ['steps', 'versions.torch']
    """
    found = []
    for key in sorted({*before, *now}):
        a, b = before.get(key), now.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += [f"{key}.{inner}" for inner in differences(a, b)]
        elif key not in before or key not in now or json.loads(json.dumps(a)) != json.loads(json.dumps(b)):
            found.append(key)
    return found


def weights_digest(model: nn.Module) -> str:
    """A short digest of a model's weights and buffers."""
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()[:16]


def _write(file: Path, write: Callable[[Path], object], put: Callable[[Path, Path], None]) -> None:
    check_replaceable(file)
    part = file.with_name(f".{secrets.token_hex(8)}{PART}")
    # a new file of a name that nobody can have prepared a link for; open to others as the umask allows
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        write(part)
        _flush(part)
        put(part, file)
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise type(error)(error.errno, os.strerror(error.errno), str(file)) from error
    finally:
        with contextlib.suppress(OSError):  # the folder is missing: report the first error
            part.unlink(missing_ok=True)
    _flush_folder(file.parent)


def _remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of processes that were killed long ago; those of others may be in use."""
    for part in folder.glob(f".*{PART}"):
        with contextlib.suppress(OSError):
            if time.time() - part.lstat().st_mtime > _OLD:
                part.unlink()


def _put_if_absent(part: Path, file: Path) -> None:
    try:
        os.link(part, file)
    except FileExistsError:
        pass  # another process was first
    except OSError:  # a file system without hard links
        if not file.exists():
            os.replace(part, file)


def _flush(file: Path) -> None:
    """Flush to disk, so that a crash does not leave an empty file under the final name."""
    handle = os.open(file, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not supported by every network file system
            os.fsync(handle)
    finally:
        os.close(handle)
