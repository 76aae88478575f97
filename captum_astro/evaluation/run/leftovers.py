"""Temporary files of killed processes, removed only when no process uses the folder."""

from __future__ import annotations

import contextlib
import os
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from captum_astro.storage import PART

_locks: Any = import_module("fcntl") if find_spec("fcntl") else None  # Windows has none


class Use:
    """A context in which a process uses a folder; the system ends it if the process is killed.

    Args:
        folder: The folder; it must exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handle: int | None = None

    def __enter__(self) -> Use:
        if _locks is not None:
            self._handle = os.open(self._folder, os.O_RDONLY)
            with contextlib.suppress(OSError):  # not supported by every network file system
                _locks.flock(self._handle, _locks.LOCK_SH)
        return self

    def __exit__(self, *error: object) -> None:
        if self._handle is not None:
            os.close(self._handle)

    def tidy(self, patience: float = 5.0) -> None:
        """Remove the temporary files of killed processes, unless others use the folder.

        Args:
            patience: Seconds to wait for others to end.
        """
        folders = (self._folder, self._folder / "chunks", self._folder / "maps")
        found = [file for folder in folders for file in folder.glob(f".*{PART}")]
        if found and self._alone(patience):
            for file in found:
                with contextlib.suppress(OSError):
                    file.unlink()

    def _alone(self, patience: float) -> bool:
        until = time.monotonic() + patience
        while not (alone := self._locked()) and time.monotonic() < until:
            time.sleep(0.05)
        return alone

    def _locked(self) -> bool:
        if self._handle is None:
            return False
        try:
            _locks.flock(self._handle, _locks.LOCK_EX | _locks.LOCK_NB)
        except OSError:  # in use, or no locks here
            return False
        return True
