"""How a model takes lists of patches: padded to a common number, with arguments that say what they are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PatchLists:
    """The arguments of a model of lists of patches ``(B, n, ...)``, whose padding comes last.

    Attributes:
        arguments: The names of the additional arguments, in order.
        valid: Which of them says what is a patch and no padding, ``(B, n)``.
        coord: Which of them has the row and the column of each patch, ``(B, n, 2)``; None if none has.
        channels: The number of the patches' channels, which share what a patch gets.
    """

    arguments: tuple[str, ...]
    valid: str
    coord: str | None
    channels: int
