"""MkDocs hook: every method has a page of its own in the API, listed in the navigation and on the overview."""

from __future__ import annotations

from typing import Any

from mkdocs.structure.files import File

from captum_astro import explainers

_OVERVIEW = "api/attr.md"
_LIST = "<!-- METHODS -->"
_PAGE = """# API: {name}

[What {name} computes, and when it fails](../methods/{page}.md). To import it: `from captum_astro import {name}`.

::: {path}
"""


def on_config(config: Any) -> Any:
    """Put the pages under the overview in the navigation."""
    api = next(section["API"] for section in config.nav if "API" in section)
    place = next(i for i, entry in enumerate(api) if _OVERVIEW in entry.values())
    title = next(iter(api[place]))
    api[place] = {title: [{"Overview": _OVERVIEW}, *({name: f"api/{name.lower()}.md"} for name in _paths())]}
    return config


def on_files(files: Any, *, config: Any, **_: Any) -> Any:
    """Add the pages."""
    for name, path in _paths().items():
        text = _PAGE.format(name=name, page=name.lower(), path=path)
        files.append(File.generated(config, f"api/{name.lower()}.md", content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """List the pages on the overview."""
    return markdown.replace(_LIST, "\n".join(f"- [`{name}`]({name.lower()}.md)" for name in _paths()))


def _paths() -> dict[str, str]:
    """The dotted path of each method's class, by its name."""
    return {e.name: f"{e.method.__module__}.{e.method.__qualname__}" for e in explainers()}
