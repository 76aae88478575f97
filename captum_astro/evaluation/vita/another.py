"""A control: that a map agrees better with where people look in any photograph, not in this one."""

from __future__ import annotations

import random

WITHIN = 64  # photographs whose maps are kept


def another(index: int, seed: int = 0) -> int | None:
    """The index of another photograph, whose human map stands in for that of this one.

    It is drawn from the 64 before it, so that samples can be read one after the other, and more of them change nothing.

    Args:
        index: The index of the photograph.
        seed: Random seed.

    Returns:
        An index below ``index``; None for the first photograph, which has none before it.

    Example:
        >>> another(0), another(1), another(100) in range(36, 100)
        (None, 0, True)
    """
    if index == 0:
        return None
    return index - 1 - random.Random(f"{seed} {index}").randrange(min(index, WITHIN))  # the same in every process
