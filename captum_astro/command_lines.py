"""Command lines as texts that anyone can run, wherever their files lie."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

WIDTH = 76
DATA = "$DATA"


def portable(data: str) -> str:
    """A dataset without the location of its files.

    Example:
        >>> portable("boxes:/home/me/photos/"), portable("scenes"), portable("hf:owner/pets:test")
        ('boxes:$DATA/photos', 'scenes', 'hf:owner/pets:test')
    """
    name, colon, path = data.partition(":")
    if name == "hf" and re.match(r"\w", path) and not re.match(r"\w:[/\\]", path):
        return data  # the Hub's own name
    last = re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    return f"{name}:{DATA}/{last}" if colon and last else data


def wrapped(words: Sequence[str]) -> str:
    r"""A command over lines that fit a page; a word in double quotes may go on in the next line.

    Example:
        >>> print(wrapped(["captum-astro bench", "--data " + "x" * 60, "-n 3"]))
        captum-astro bench \
            --data xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx -n 3
    """
    lines = [words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) < WIDTH:
            lines[-1] += f" {word}"
        else:
            lines += textwrap.wrap(word, WIDTH, initial_indent="    ", break_long_words=False, break_on_hyphens=False)
    return " \\\n".join(lines)


def quoted(text: str) -> str:
    r"""A word of a command, in which the shell still replaces ``$DATA`` and ``$RUNS``.

    Example:
        >>> print(quoted("$DATA/a b"), quoted("out"), quoted("$HOME"))
        "$DATA/a b" out "\$HOME"
    """
    if re.fullmatch(r"[\w.,:/=+@-]+", text):
        return text
    inert = re.sub(r'([`"\\]|\$(?!(?:DATA|RUNS)\b))', r"\\\1", text)
    return f'"{inert}"'
