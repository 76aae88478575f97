"""One benchmark on many processes, which coordinate only through the folder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")
PATIENCE = 1800.0


@dataclass(frozen=True)
class Shard:
    """The rank of this process among all that run the same command.

    Attributes:
        rank: From 0.
        world_size: The number of processes.
        local_rank: The rank on this machine.
        patience: Seconds without a new chunk after which the other processes are considered dead.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    patience: float = field(default_factory=lambda: PATIENCE, repr=False)

    @property
    def first(self) -> bool:
        """Whether this is the process that writes the shared files."""
        return self.rank == 0

    def mine(self, chunks: Sequence[T]) -> list[T]:
        """Every `world_size`-th chunk.

        Example:
            >>> Shard(rank=1, world_size=3).mine([10, 11, 12, 13, 14])
            [11, 14]
        """
        return list(chunks[self.rank :: self.world_size])

    def device(self, wanted: str) -> str:
        """``cuda`` becomes this process's own GPU; any other device is unchanged."""
        return f"cuda:{self.local_rank}" if wanted == "cuda" and self.world_size > 1 else wanted


def shard_of(environment: Mapping[str, str] | None = None) -> Shard:
    """The rank of this process from ``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK``, as set by torchrun.

    Args:
        environment: By default the environment of the process.

    Raises:
        ValueError: If they are not consistent numbers.

    Example:
        >>> shard_of({"RANK": "1", "WORLD_SIZE": "2"})
        Shard(rank=1, world_size=2, local_rank=0)
    """
    found = os.environ if environment is None else environment
    given = {
        name: found.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
    }
    try:
        shard = Shard(*(int(value) for value in given.values()))
    except ValueError as error:
        raise ValueError(f"{given}: numbers are needed, as torchrun sets them.") from error
    if not 0 <= shard.rank < shard.world_size or shard.local_rank < 0:
        raise ValueError(f"{given}: RANK runs from 0 to WORLD_SIZE - 1.")
    return shard


def wait(
    missing: Callable[[], int], patience: float, pause: float = 0.5, clock: Callable[[], float] = time.monotonic
) -> int:
    """Wait until nothing is missing, as long as there is progress.

    Args:
        missing: Returns how much is missing.
        patience: Give up after this many seconds without a change.
        pause: Seconds between two checks.
        clock: Returns the time in seconds.

    Returns:
        How much is missing at the end: 0 unless it gave up.

    Example:
        >>> left = iter([3, 1, 0])
        >>> wait(lambda: next(left), patience=60, pause=0)
        0
    """
    before, since = missing(), clock()
    while before and clock() - since < patience:
        time.sleep(pause)
        now = missing()
        if now != before:
            before, since = now, clock()
    return before
