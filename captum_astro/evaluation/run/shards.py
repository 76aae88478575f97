"""One benchmark on many processes: who computes what, and how they wait for each other, through the folder alone."""

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
    """The place of this process among all that run the same command.

    Attributes:
        rank: From 0.
        world_size: How many there are.
        local_rank: On this machine.
        patience: Seconds without a new chunk after which the other processes are taken for dead.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    patience: float = field(default_factory=lambda: PATIENCE, repr=False)

    @property
    def first(self) -> bool:
        """The process that writes what all share."""
        return self.rank == 0

    def mine(self, chunks: Sequence[T]) -> list[T]:
        """Every `world_size`-th chunk.

        Example:
            >>> Shard(rank=1, world_size=3).mine([10, 11, 12, 13, 14])
            [11, 14]
        """
        return list(chunks[self.rank :: self.world_size])

    def device(self, wanted: str) -> str:
        """``cuda`` is this process's own GPU; anything else is what it says."""
        return f"cuda:{self.local_rank}" if wanted == "cuda" and self.world_size > 1 else wanted


def shard_of(environment: Mapping[str, str] | None = None) -> Shard:
    """The place of this process from ``RANK``, ``WORLD_SIZE`` and ``LOCAL_RANK``, as torchrun sets them.

    Args:
        environment: By default the process's own.

    Raises:
        ValueError: If they are no numbers that fit together.

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
    """Wait until nothing is missing, as long as it becomes less.

    Args:
        missing: How much is.
        patience: Give up after so many seconds without any change.
        pause: Seconds between two looks.
        clock: Of the seconds.

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
