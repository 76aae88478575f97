"""Work beside the main thread, so that what computes waits neither for what is read nor for what is written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(items: Iterable[Item], read: Callable[[Item], Result], workers: int) -> Generator[Result]:
    """What is read for each item, in order, while the caller works with what was read before.

    Args:
        items: The items.
        read: Reads one; several threads call it.
        workers: The number of threads, each of which is one item ahead; 0 reads in the caller's.

    Raises:
        Exception: What ``read`` raises, when it is that item's turn.

    Example:
        >>> list(ahead([3, 1, 2], str, workers=2))
        ['3', '1', '2']
    """
    if not workers:
        yield from map(read, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers, "reading") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def behind(items: Iterable[Item], finish: Callable[[Item], Result]) -> Iterator[Result]:
    """What finishing each item gives, in order; an item is finished while the next one is made.

    Args:
        items: Makes the items.
        finish: Finishes one; one thread calls it.

    Raises:
        Exception: What ``finish`` raises; no further item is finished.

    Example:
        >>> list(behind([3, 1, 2], str))
        ['3', '1', '2']
    """
    last: Future[Result] | None = None
    with ThreadPoolExecutor(1, "finishing") as pool:
        for item in items:
            if last is not None:
                yield last.result()
            last = pool.submit(finish, item)
        if last is not None:
            yield last.result()
