"""Which explanation runs in this thread, and one at a time for each model."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import weakref
from collections.abc import Iterator

from torch import nn

_NUMBERS = itertools.count(1)


class _Current(threading.local):
    number: int = 0


class _Locks:
    """A lock for each model, which lives as long as the model."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all locks: in a forked process, the threads that hold them do not exist."""
        self._one_each = threading.Lock()
        self._of: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()

    def of(self, model: nn.Module) -> threading.RLock:
        """The lock of a model."""
        with self._one_each:
            return self._of.setdefault(model, threading.RLock())


_CURRENT, _LOCKS = _Current(), _Locks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_LOCKS.reset)


def current() -> int:
    """The number of the explanation that runs in this thread, the innermost one if a hook explains; 0 if none."""
    return _CURRENT.number


@contextlib.contextmanager
def explaining(model: nn.Module) -> Iterator[None]:
    """Begin an explanation in this thread, after those of the same model in other threads have ended.

    Args:
        model: The model whose code runs: the one that others may share, not a wrapper around it.
    """
    with _LOCKS.of(model):
        outer, _CURRENT.number = _CURRENT.number, next(_NUMBERS)
        try:
            yield
        finally:
            _CURRENT.number = outer
