"""What the methods' files declare, read without importing them: PyTorch alone takes seconds."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

_PACKAGE = Path(__file__).parents[1]


class Declared(NamedTuple):
    """A method's name and class attributes, as in `captum_astro.attr.explainers.Explainer`."""

    name: str
    family: str
    needs_gradient: bool
    source: str


def declared() -> list[Declared]:
    """The methods that the package exports, in alphabetical order.

    Example:
        >>> [method.family for method in declared() if method.name == "VTranM"]
        ['attention']
    """
    exported = _imports(ast.parse((_PACKAGE / "__init__.pyi").read_text("utf-8")))
    files = {name: file for name, file in exported.items() if file.parent.name == "attr"}
    found = {name: _attributes(file, name) for name, file in sorted(files.items())}
    return [
        Declared(name, own["family"], own["needs_gradient"], own["source"])
        for name, own in found.items()
        if "source" in own
    ]


@cache
def _attributes(file: Path, name: str) -> dict[str, Any]:
    """The constants in the body of a class and of the classes that it inherits from."""
    tree = ast.parse(file.read_text("utf-8"))
    found: dict[str, Any] = {}
    for node in tree.body:
        if not isinstance(node, ast.ClassDef) or node.name != name:
            continue
        for base in (base.id for base in reversed(node.bases) if isinstance(base, ast.Name)):
            found |= _attributes(_imports(tree).get(base, file), base)
        for line in node.body:
            target = line.targets[0] if isinstance(line, ast.Assign) else getattr(line, "target", None)
            value = getattr(line, "value", None)
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant):
                found[target.id] = value.value
    return found


def _imports(tree: ast.Module) -> dict[str, Path]:
    """The files of this package from which names are imported."""
    return {
        alias.name: _PACKAGE.joinpath(*(node.module or "").removeprefix("captum_astro.").split(".")).with_suffix(".py")
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("captum_astro."))
        for alias in node.names
    }
