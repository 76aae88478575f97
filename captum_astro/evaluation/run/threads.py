"""Work beside the main thread, so that what computes waits neither for files that are read nor for those written."""

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


def behind(items: Iterable[Item], write: Callable[[Item], object]) -> Iterator[Item]:
    """The items, in order, each once it is written, which happens while the next one is made.

    Args:
        items: Makes the items.
        write: Writes one; one thread calls it.

    Raises:
        Exception: What ``write`` raises; no further item is written.

    Example:
        >>> written = []
        >>> list(behind(["a", "b"], written.append)), written
        (['a', 'b'], ['a', 'b'])
    """
    last: tuple[Item, Future[object]] | None = None
    with ThreadPoolExecutor(1, "writing") as pool:
        for item in items:
            if last is not None:
                last[1].result()
                yield last[0]
            last = item, pool.submit(write, item)
        if last is not None:
            last[1].result()
            yield last[0]
