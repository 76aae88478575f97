"""Results kept in a folder, part by part: each file whole or not at all, and a record of what they belong to."""

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
    """Write under another name first, and to the disk itself, so that the file is there whole or not at all.

    Args:
        file: The file.
        write: Writes to the path it is given.
        mark: Of the writer, where several may write the same file at once; see `part_of`.

    Raises:
        OSError: If it cannot be written; it names the file.

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
        with contextlib.suppress(OSError):  # the folder is gone, or was none: the first error says so
            part.unlink(missing_ok=True)
    _flush_folder(file.parent)


def part_of(file: Path, mark: str = "") -> Path:
    """The name under which a file is written before it is whole; with a mark, one writer's own."""
    return file.with_name(f".{file.name}{mark}.part")


def read_record(file: Path) -> dict[str, Any]:
    """What the results of a folder belong to.

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
    raise ValueError(f"{file} is damaged. Give another folder, or delete this one.")


def begin(folder: Path, described: Mapping[str, Any], otherwise: str = "delete this one") -> None:
    """Make a folder for the results of one run, or check that it is that run's.

    Args:
        folder: The folder.
        described: What the results depend on, as JSON has it; nested names are joined with a point in messages.
        otherwise: The way out besides another folder, in words.

    Raises:
        ValueError: If the folder holds results of something else, with what differs.
        OSError: If it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / RECORD
    if record.exists():
        changed = differences(read_record(record), described)
        if changed:
            raise ValueError(
                f"{folder} holds results of another run ({', '.join(changed)} differ). Give another folder, or "
                f"{otherwise}."
            )
    else:
        write_whole(record, lambda to: to.write_text(json.dumps(described, indent=1) + "\n"))


def differences(before: Any, now: Any) -> list[str]:
    """The names of what differs, sorted, ``a.b`` for a name inside another; JSON's lists and tuples are one.

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
    """A short name of a model's weights and buffers."""
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()[:16]


def _flush(file: Path) -> None:
    """To the disk, so that a machine that stops does not leave an empty file under a whole one's name."""
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
        with contextlib.suppress(OSError):  # not every network folder can
            os.fsync(handle)
    finally:
        os.close(handle)
