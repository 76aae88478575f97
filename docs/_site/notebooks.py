"""MkDocs hook: every notebook becomes a page, with the outputs that are stored in it, if any."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

_PICTURES = {"image/png": "png", "image/jpeg": "jpg"}
_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#)([^)]*)\)")


def on_files(files: Any, *, config: Any, **_: Any) -> Any:
    """Add a page for each notebook and for the folder's README, and the notebooks' pictures."""
    folder = Path(config.config_file_path).parent / "notebooks"
    made: dict[str, str | bytes] = {"index.md": _linked((folder / "README.md").read_text(encoding="utf-8"))}
    for notebook in sorted(folder.glob("*.ipynb")):
        made |= _converted(json.loads(notebook.read_text(encoding="utf-8")), notebook.stem)
    for name, content in made.items():
        files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def _converted(notebook: dict[str, Any], name: str) -> dict[str, str | bytes]:
    """The page and its pictures, by file name."""
    parts: list[str] = []
    pictures: dict[str, str | bytes] = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(_linked(source))
            continue
        parts.append(_fenced("python", source))
        for output in cell.get("outputs", []):
            data = output.get("data", {"text/plain": output.get("text", "")})
            kind = next((kind for kind in (*_PICTURES, "text/html", "text/plain") if kind in data), None)
            shown = "".join(data[kind]) if kind else ""
            if kind in _PICTURES:
                file = f"{name}_{len(pictures) + 1}.{_PICTURES[kind]}"
                pictures[file] = base64.b64decode(shown)
                parts.append(f"![What the code above draws]({file})")
            elif shown.strip():
                parts.append(shown if kind == "text/html" else _fenced("text", shown))
    return {f"{name}.md": "\n\n".join(parts) + "\n", **pictures}


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def _linked(text: str) -> str:
    """Links to pages and notebooks lead to the site's pages; links to other files become plain text."""

    def moved(link: re.Match[str]) -> str:
        path = link[2].replace("../docs/", "../").replace(".ipynb", ".md").replace("README.md", "index.md")
        inside = path.partition("#")[0].endswith(".md")
        return f"[{link[1]}]({path})" if inside else link[1]

    return _LINK.sub(moved, text)
