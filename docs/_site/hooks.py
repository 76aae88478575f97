"""MkDocs hooks: equations are converted to MathML during the build, and the front page is the README."""

from __future__ import annotations

import html
import logging
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

_EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
_README = "<!-- README -->"
_PAGES = {"CITATION.cff": "bibliography.md#how-to-cite", "notebooks/README.md": "notebooks/index.md"}
_ELSEWHERE = re.compile(r'<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)="(?:https?:)?//[^"]*"')
_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:)([^)]*)\)")


def on_page_content(content: str, *, page: Any, **_: Any) -> str:
    """Convert the equations found by arithmatex to MathML: no script and no external font are needed.

    An equation that it did not find, as without an empty line before ``$$``, is a warning, which stops a strict build.
    """
    content = _EQUATION.sub(_mathml, content)
    if "$$" in content:
        logging.getLogger("mkdocs.hooks").warning("%s has $$ outside an equation", page.file.src_uri)
    return content


def on_page_markdown(markdown: str, *, config: Any, **_: Any) -> str:
    """Insert the README at its placeholder, with links relative to ``docs``."""
    if _README not in markdown:
        return markdown
    readme = (Path(config.config_file_path).parent / "README.md").read_text(encoding="utf-8")
    return markdown.replace(_README, _LINK.sub(_from_docs, readme))


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Warn, which stops a strict build, about anything that a browser would fetch from elsewhere."""
    for found in _ELSEWHERE.findall(output):
        logging.getLogger("mkdocs.hooks").warning("%s fetches %s", page.file.src_uri, found)
    return output


def _mathml(found: re.Match[str]) -> str:
    block = found[1] == "div"
    maths = convert(html.unescape(found[2]), display="block" if block else "inline")
    return f'<div class="equation">{maths}</div>' if block else maths


def _from_docs(link: re.Match[str]) -> str:
    """Rewrite a link into ``docs``, or to a file that a page stands for; to any other file it becomes plain text."""
    words, path = link[1], link[2]
    if path.startswith("docs/"):
        return f"[{words}]({path.removeprefix('docs/')})"
    return f"[{words}]({_PAGES[path]})" if path in _PAGES else words
