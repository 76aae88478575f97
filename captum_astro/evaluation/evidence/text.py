"""Text in Markdown that may be anyone's: names of models, methods and errors."""

from __future__ import annotations

import re

_MARKS = re.compile(r"[&<>`*\[\]\\|#~$]")
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z][a-z]|CAM)|(?<=[:+=])")


def inert(text: str) -> str:
    """Text in one line, of which nothing is markup.

    Example:
        >>> inert("a_b | <i>")
        'a_b &#124; &#60;i&#62;'
    """
    return _MARKS.sub(lambda found: f"&#{ord(found[0])};", " ".join(text.split()))


def code(text: str) -> str:
    """Text as code.

    Example:
        >>> code("deit_tiny_patch16_224")
        '`deit_tiny_patch16_224`'
    """
    return f"`{' '.join(text.split()).replace('`', chr(39))}`"


def breakable(name: str) -> str:
    """The same, with places where a narrow table may break it.

    Example:
        >>> breakable("TokenGradCAM")
        'Token<wbr>Grad<wbr>CAM'
        >>> breakable("VTranM:gain=3")
        'VTranM:<wbr>gain=<wbr>3'
    """
    return "<wbr>".join(inert(part) for part in _WORD.split(name))
