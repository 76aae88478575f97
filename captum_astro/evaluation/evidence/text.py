"""Text in Markdown that may be anyone's: names of models, methods and errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

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


def headings(folders: Sequence[Path], out: Path) -> list[str]:
    """The headings of a page: the names of the folders of its runs.

    Raises:
        ValueError: If ``out`` is no Markdown file, no folder is given or two have one name.

    Example:
        >>> headings([Path("runs/boxes"), Path("runs/masks")], Path("page.md"))
        ['boxes', 'masks']
    """
    names = [folder.resolve().name for folder in folders]
    if out.suffix.lower() != ".md":
        raise ValueError(f"--out {out}: the page is Markdown. Give a name that ends in .md.")
    if not names or len({*names}) < len(names):
        raise ValueError("Give at least one folder, and folders of different names: these are the page's headings.")
    return names
