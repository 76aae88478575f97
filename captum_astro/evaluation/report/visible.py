"""Control characters in text, made visible."""

from __future__ import annotations

import re

# all but the tab and the line feed; then line separators, those that change the direction of text, and halves of
# characters, which JSON may hold and UTF-8 cannot
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    r"""Text in which control characters are written as escapes: a name of a file may hold a terminal's commands.

    Example:
        >>> visible("a\x1b[2Jb")
        'a\\x1b[2Jb'
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
