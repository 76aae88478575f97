"""Why processes stopped, for those that wait for them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from captum_astro.evaluation.run.shards import Shard
from captum_astro.storage import write_whole

GRACE = 10.0  # seconds in which the first process removes the notices of an earlier start


class Notices:
    """Why processes stopped, one file each in the shared folder, for those that wait for them.

    As a context, it leaves a notice if an error ends it, and removes old ones when it begins: the first process all,
    before it does anything else, every other process its own. What another process then finds may be of an earlier
    start, until the first process has had time to remove it.

    Args:
        folder: The folder.
        shard: This process; there are no notices if it is the only one.
    """

    def __init__(self, folder: Path, shard: Shard) -> None:
        self._folder, self._shard = folder, shard
        self._old: set[str] = set()
        self._began = time.monotonic()

    def __enter__(self) -> Notices:
        self.clear()
        self._old = {reason for _, reason in self._found()}
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or self._shard.world_size == 1:
            return
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        with contextlib.suppress(OSError):  # the error itself is more important
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._file(self._shard.rank), lambda part: part.write_text(reason, encoding="utf-8"))

    def clear(self) -> None:
        """Remove the notices that this process may remove."""
        own = self._file(self._shard.rank)
        every = [file for file in self._folder.glob("stopped-*.txt") if file.stem.removeprefix("stopped-").isdecimal()]
        for file in every if self._shard.first else [own]:
            with contextlib.suppress(OSError):
                file.unlink()

    def check(self) -> None:
        """Check that no other process has stopped.

        Raises:
            ValueError: If one has, with its reason.
        """
        waited = time.monotonic() - self._began > GRACE
        for rank, reason in self._found():
            if waited or reason not in self._old:
                raise ValueError(f"Process {rank} has stopped: {reason}")

    def _found(self) -> Iterator[tuple[int, str]]:
        for rank in range(self._shard.world_size):
            if rank != self._shard.rank:
                with contextlib.suppress(OSError):
                    yield rank, self._file(rank).read_text(encoding="utf-8", errors="replace")

    def _file(self, rank: int) -> Path:
        return self._folder / f"stopped-{rank}.txt"
