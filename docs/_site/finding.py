"""MkDocs hook: the search puts pages before API entries, and finds a page by its front matter's ``keywords`` too."""

from __future__ import annotations

import html
from typing import Any

_BOOST = {"api/": 0.002, "timm.md": 0.01, "notebooks/": 0.5}  # by the beginning of a page's path; others have 1


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Set the page's weight in the search."""
    for start, boost in _BOOST.items():
        if page.file.src_uri.startswith(start):
            page.meta.setdefault("search", {})["boost"] = boost
    return markdown


def on_page_content(content: str, *, page: Any, **_: Any) -> str:
    """Put the keywords after the title, where only the search sees them."""
    words = html.escape(page.meta.get("keywords", ""))
    return content.replace("</h1>", f"</h1>\n<p hidden>{words}</p>", 1) if words else content
