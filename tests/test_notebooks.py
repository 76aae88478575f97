"""The stored notebooks ran from top to bottom, without an error, and their outputs are machine-independent."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NAMES = ["astromorphic", "quantus_benchmark", "vita_human_alignment", "vtranm_beside_captum", "your_own_model"]
FOREIGN = re.compile(
    r"(?<![\w.])/(?:home|root|tmp|work|usr|opt|Users|private|mnt)/|[A-Z]:\\|site-packages|\b0x[0-9a-f]{6,}"
)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")

pytestmark = pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)


def _cells(notebook: Path, kind: str) -> list[Any]:
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == kind]


def _outputs(notebook: Path) -> list[Any]:
    return [output for cell in _cells(notebook, "code") for output in cell["outputs"]]


def test_is_listed_in_the_readme(notebook: Path) -> None:
    assert [path.stem for path in NOTEBOOKS] == NAMES
    assert f"]({notebook.name})" in (FOLDER / "README.md").read_text()


def test_ran_from_top_to_bottom(notebook: Path) -> None:
    counts = [cell["execution_count"] for cell in _cells(notebook, "code")]
    assert counts == list(range(1, len(counts) + 1))
    assert not [o for o in _outputs(notebook) if o["output_type"] == "error" or o.get("name") == "stderr"]


def test_holds_pictures_and_is_small(notebook: Path) -> None:
    assert notebook.stat().st_size < 300_000
    kinds = ("image/png", "image/jpeg")
    pictures = [o["data"][kind] for o in _outputs(notebook) for kind in kinds if kind in o.get("data", {})]
    assert pictures
    for picture in pictures:
        held = base64.b64decode(picture)
        assert held.startswith((b"\x89PNG", b"\xff\xd8"))
        assert not re.search(rb"tEXt|iTXt|tIME|Exif", held), "the picture says with what or when it was drawn"


def test_belongs_to_no_machine(notebook: Path) -> None:
    held = json.loads(notebook.read_text())
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    assert held["metadata"] == {"kernelspec": kernel, "language_info": {"name": "python"}}
    assert all(cell["metadata"] == {} for cell in held["cells"])
    assert all(output.get("metadata", {}) == {} for output in _outputs(notebook))
    for output in _outputs(notebook):
        texts = [output.get("text", []), *(v for k, v in output.get("data", {}).items() if k.startswith("text/"))]
        written = "".join("".join(text) for text in texts)
        assert FOREIGN.search(written) is None, written


def test_begins_with_the_switch(notebook: Path) -> None:
    first = "".join(_cells(notebook, "code")[0]["source"])
    assert first.startswith("%matplotlib inline\n")
    settings = first.split("\n", 1)[1]
    assert all(re.match(r"[A-Z_]+ = .+  # .+", line) for line in settings.splitlines())


def test_links_hold(notebook: Path) -> None:
    for cell in _cells(notebook, "markdown"):
        for target in LINK.findall("".join(cell["source"])):
            assert "://" in target or (FOLDER / target).exists(), target
