"""MkDocs hook: the navigation names each page of evidence that has been made, in alphabetical order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_FIRST = "evidence/index.md"


def on_config(config: Any, **_: Any) -> Any:
    """Add the pages beside the one that says how they are made."""
    docs = Path(config.docs_dir)
    made = sorted(file.relative_to(docs).as_posix() for file in (docs / _FIRST).parent.glob("*.md"))
    for entry in config.nav:
        for part in entry.values():
            if isinstance(part, list) and any(_FIRST in one.values() for one in part if isinstance(one, dict)):
                part += [page for page in made if page != _FIRST]
    return config
