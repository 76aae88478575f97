"""The parts of the evaluation import each other in one direction, and the package has no import cycles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import captum_astro

PACKAGE = Path(captum_astro.__file__).parent
MAY_IMPORT = {
    "specification": set(),
    "run": {"specification"},
    "analysis": {"specification", "run"},
    "report": {"specification", "run", "analysis"},
    "evidence": {"specification", "run", "analysis", "report"},
    "vita": {"specification", "run"},
    "words": {"specification", "run"},
}


def _modules(folder: Path) -> dict[str, Path]:
    """Files by import name."""
    found = {}
    for file in sorted(folder.rglob("*.py")):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def _imported(file: Path, known: dict[str, Path], deep: bool) -> Iterator[str]:
    """The package's modules that a file names; only those imported with it, unless ``deep``."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree) if deep else tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in known else node.module for name in inside)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_there_are_no_other_parts() -> None:
    folder = PACKAGE / "evaluation"
    assert {path.name for path in folder.iterdir() if path.is_dir() and path.name != "__pycache__"} == set(MAY_IMPORT)
    assert [path.name for path in folder.glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_a_part_imports_only_earlier_ones(part: str) -> None:
    known = _modules(PACKAGE)
    start = "captum_astro.evaluation."
    found = {
        name.removeprefix(start).split(".")[0]
        for file in _modules(PACKAGE / "evaluation" / part).values()
        for name in _imported(file, known, deep=True)
        if name.startswith(start)
    }
    assert found - {part} <= MAY_IMPORT[part]


def test_no_indirect_import_cycles() -> None:
    known = _modules(PACKAGE)
    imports = {
        name: {other for other in _imported(file, known, deep=False) if other in known and other != name}
        for name, file in known.items()
    }
    assert sum(map(len, imports.values())) > 300
    while leaves := [name for name, others in imports.items() if not others]:
        for name in leaves:
            del imports[name]
        for others in imports.values():
            others.difference_update(leaves)
    assert imports == {}, "these import each other in a circle"
