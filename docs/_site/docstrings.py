"""Griffe extension: docstrings as this project writes them, in the words that mkdocstrings knows."""

from __future__ import annotations

import re
import textwrap
from typing import Any

from griffe import Extension, Object

_ROLE = re.compile(r":math:`(.+?)`", re.DOTALL)
_BLOCK = re.compile(r"^\.\. math::\n\n((?: {4}.*\n?|\n)+)", re.MULTILINE)
_LITERAL = re.compile(r"^(.*[^:\s])::\n\n((?: {4}.*(?:\n|$)|\n)+)", re.MULTILINE)


class Docstrings(Extension):
    """``Example:`` is a section of its own; roles and directives of reStructuredText become Markdown."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value)


def rewritten(text: str) -> str:
    """A docstring in Google style with Markdown."""
    text = re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)
    text = _BLOCK.sub(lambda m: f"$$\n{textwrap.dedent(m[1]).strip()}\n$$\n\n", text)
    text = _ROLE.sub(lambda m: f"${' '.join(m[1].split())}$", text)
    return _LITERAL.sub(lambda m: f"{m[1]}:\n\n```text\n{textwrap.dedent(m[2]).strip()}\n```\n\n", text)
