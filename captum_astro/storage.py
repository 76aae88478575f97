"""Results stored in a folder, part by part: atomic file writes, and a record of the run that the folder belongs to."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

RECORD = "run.json"


def write_whole(file: Path, write: Callable[[Path], object], mark: str = "") -> None:
    """Write a file atomically: under a temporary name, flushed to disk, then renamed; complete or absent.

    Args:
        file: The file.
        write: Function that writes to the path it receives.
        mark: Identifies the writer if several may write the same file concurrently; see `part_of`.

    Raises:
        OSError: If it cannot be written; the error names the file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_whole(Path(folder) / "a.txt", lambda part: part.write_text("whole"))
        ...     [file.name for file in Path(folder).iterdir()]
        ['a.txt']
    """
    part = part_of(file, mark)
    try:
        write(part)
        _flush(part)
        os.replace(part, file)
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise type(error)(error.errno, os.strerror(error.errno), str(file)) from error
    finally:
        with contextlib.suppress(OSError):  # the folder is missing: report the first error
            part.unlink(missing_ok=True)
    _flush_folder(file.parent)


def part_of(file: Path, mark: str = "") -> Path:
    """The temporary name of a file; with a mark, unique to one writer."""
    return file.with_name(f".{file.name}{mark}.part")


def read_record(file: Path) -> dict[str, Any]:
    """The record of the run that a folder's results belong to.

    Raises:
        ValueError: If the file is damaged.
        OSError: If it cannot be read.
    """
    try:
        found = json.loads(file.read_text())
        if isinstance(found, dict):
            return found
    except ValueError:
        pass
    raise ValueError(f"{file} is damaged. Choose another folder, or delete this one.")


def begin(folder: Path, described: Mapping[str, Any], otherwise: str = "delete this one") -> None:
    """Create a folder for the results of one run, or check that it belongs to that run.

    Args:
        folder: The folder.
        described: What the results depend on, JSON-serialisable; nested names are joined with a dot in messages.
        otherwise: The alternative to choosing another folder, for the message.

    Raises:
        ValueError: If the folder holds results of a different run; the message lists the differences.
        OSError: If it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / RECORD
    if record.exists():
        changed = differences(read_record(record), described)
        if changed:
            raise ValueError(
                f"{folder} holds results of another run ({', '.join(changed)} differ). Choose another folder, or "
                f"{otherwise}."
            )
    else:
        write_whole(record, lambda to: to.write_text(json.dumps(described, indent=1) + "\n"))


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
