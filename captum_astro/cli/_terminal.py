"""Where all text is printed: literally, and safe for any terminal."""

from __future__ import annotations

import io
import sys
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_UNLIMITED = 10_000


def printable(text: object) -> str:
    r"""Text that cannot act on a terminal: every character that is not printable becomes its Python escape.

    File names, class names and the messages of other libraries may contain escape sequences, or characters that
    reverse or hide text. Line ends and tabs stay.

    Example:
        >>> print(printable("a\x1b[31m.png"))
        a\x1b[31m.png
    """
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else letter.encode("unicode-escape").decode()
        for letter in str(text)
    )


class Terminal(Console):
    """A console on which brackets are not markup, ``:a:`` is not an emoji, and all text is `printable`."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, soft_wrap=True, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Every text that is printed, in a table or alone, comes through here."""
        return super().render_str(printable(text), **options)

    def print_whole(self, table: Table) -> None:
        """Print a table with nothing cut: lines that are too long are wrapped by the terminal itself."""
        lines = self.render_lines(table, self.options.update(width=_UNLIMITED), pad=False)
        for line in lines:
            self.print("".join(segment.text for segment in line).rstrip())

    def width_of(self, table: Table) -> int:
        """The columns of the terminal that a table needs."""
        return Measurement.get(self, self.options.update(width=_UNLIMITED), table).maximum


console = Terminal()
errors = Terminal(stderr=True)


def say_error(message: object) -> None:
    """Print an error."""
    _say("error:", "red", message)


def prepare_streams() -> None:
    """Characters that the terminal's encoding lacks are printed as escapes, also by other libraries."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def show_warning(message: Warning | str, *_place: Any, **_more: Any) -> None:
    """For `warnings.showwarning`: the user of a command has no line of code to point at."""
    _say("warning:", "yellow", message)


def _say(word: str, style: str, message: object) -> None:
    errors.print(word, style=style, end=" ")
    errors.print(str(message))
