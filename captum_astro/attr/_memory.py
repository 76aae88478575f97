"""How much memory an explanation takes, and how much there is."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_UNTOLD = 2 * 2**30  # what is taken to be free where the system does not say


class Peak(TorchDispatchMode):
    """A context that counts the bytes of the tensors that operations make in this thread, as long as they live.

    What an operation needs for itself while it runs, and frees again, is not counted.

    Attributes:
        bytes: The most that lived at a time.

    Example:
        >>> with Peak() as peak:
        ...     x = torch.zeros(1000)
        ...     y = x + 1
        >>> peak.bytes
        8000
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for declared, value in zip(func._schema.returns, made if isinstance(made, tuple) else (made,), strict=False):
            if declared.alias_info is None:  # otherwise it is a part of an input, or the input itself
                self._add(value)
        return made

    def _add(self, value: Any) -> None:
        for tensor in tree_leaves(value):
            if not isinstance(tensor, torch.Tensor):
                continue
            storage = tensor.untyped_storage()
            if id(storage) not in self._known:
                self._known.add(id(storage))
                self._now += storage.nbytes()
                weakref.finalize(storage, self._forget, id(storage), storage.nbytes())
        self.bytes = max(self.bytes, self._now)

    def _forget(self, storage: int, size: int) -> None:
        self._known.discard(storage)
        self._now -= size


def free_memory(root: Path = Path("/")) -> int:
    """The bytes that this process can still use: what the machine has, within the limits of its control groups.

    Where the system does not say, as outside Linux, 2 GiB.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return _UNTOLD
    return min([free, *_within_groups(root)])


def _within_groups(root: Path) -> Iterator[int]:
    """What each control group of this process, and each group around it, has left of its limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        base = root / "sys/fs/cgroup" / ("memory" if kinds else "")
        limit, used = ("memory.limit_in_bytes", "memory.usage_in_bytes") if kinds else ("memory.max", "memory.current")
        group = Path(path.lstrip("/"))
        found = (_left(base / place, limit, used) for place in (group, *group.parents))
        yield from (left for left in found if left is not None)


def _left(group: Path, limit: str, used: str) -> int | None:
    """What a control group has left; None if it has no limit, or none that is seen from here."""
    try:
        left = int((group / limit).read_text()) - int((group / used).read_text()) + _cached(group / "memory.stat")
    except (OSError, ValueError):
        return None
    return max(0, left)


def _cached(file: Path) -> int:
    """The bytes of files in memory that count as used, and that the system drops when memory is short."""
    words = dict(line.split() for line in file.read_text().splitlines())
    return int(words.get("total_inactive_file", words.get("inactive_file", 0)))
