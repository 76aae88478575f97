"""Progress as lines of text, for output that is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable

EVERY = 60.0  # seconds between two lines


class Lines:
    """One line a minute.

    Args:
        say: Prints a line.
        noun: What is counted, in the plural.
        clock: Returns the time in seconds.

    Example:
        >>> now = iter([0.0, 90.0])
        >>> progress = Lines(print, "steps", lambda: next(now))
        >>> progress(0, 400)
        >>> progress(10, 400)
        10 of 400 steps, 58 min left
    """

    def __init__(self, say: Callable[[str], None], noun: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._noun, self._clock = say, noun, clock
        self._start: tuple[float, int] | None = None
        self._last = 0.0

    def __call__(self, done: int, total: int | None = None) -> None:
        """Note how many are done, of how many if that is known."""
        now = self._clock()
        if self._start is None:
            self._start, self._last = (now, done), now
        began, before = self._start
        if now - self._last < EVERY or done <= before:
            return
        left = "" if total is None else f", {_time((now - began) / (done - before) * (total - done))} left"
        self._say(f"{done}{'' if total is None else f' of {total}'} {self._noun}{left}")
        self._last = now


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
