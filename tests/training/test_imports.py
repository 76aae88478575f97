"""Imports of training and models are one-directional, and need no library that only some tasks need."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import captum_astro
from captum_astro.extras import EXTRAS
from tests.commands import run_command
from tests.training.making import cifar_parquet, imdb_parquet

PACKAGE = Path(captum_astro.__file__).parent
ROOMS = ("captum_astro.training", "captum_astro.models")
OPTIONAL = {*EXTRAS, "sklearn"}
TASKS = {"cifar10", "imdb", "scenes", "wikitext2"}
RUNS = {"config", "run", "ablation", "parts"}


def _modules(package: Path) -> dict[str, Path]:
    """Files by import name; a lazy package is represented by its stub."""
    found = {}
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package.parent).with_suffix("").parts
        stub = file.with_suffix(".pyi")
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = stub if stub.exists() else file
    return found


def _imports(package: Path) -> dict[str, set[str]]:
    """The modules of the package that each module imports: at the top, for type checkers, and inside functions."""
    known = _modules(package)
    graph: dict[str, set[str]] = {}
    for name, file in known.items():
        graph[name] = set()
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names} & known.keys()
            elif isinstance(node, ast.ImportFrom):
                inside = name if file.stem == "__init__" else name.rpartition(".")[0]
                above = ".".join(inside.split(".")[: len(inside.split(".")) - node.level + 1]) if node.level else ""
                source = ".".join(part for part in (above, node.module) if part)
                for alias in node.names:
                    whole = f"{source}.{alias.name}"
                    graph[name] |= {whole if whole in known else source} & known.keys()
        graph[name].discard(name)
    return graph


def _circle(graph: dict[str, set[str]], start: str) -> list[str]:
    """An import cycle through a module; empty if there is none."""
    ways = [[start, other] for other in sorted(graph[start])]
    seen: set[str] = set()
    while ways:
        way = ways.pop()
        if way[-1] == start:
            return way
        if way[-1] not in seen:
            seen.add(way[-1])
            ways += [[*way, other] for other in sorted(graph[way[-1]])]
    return []


def test_no_import_cycles() -> None:
    graph = _imports(PACKAGE)
    own = [name for name in graph if name.startswith(ROOMS)]
    assert len(own) > 20
    assert "captum_astro.training.options" in graph["captum_astro.training.task"]
    assert [_circle(graph, name) for name in own] == [[] for _ in own]


def test_parts_then_tasks_then_runs() -> None:
    graph = _imports(PACKAGE)
    start = f"{ROOMS[0]}."
    used = {
        name.removeprefix(start): {other.removeprefix(start) for other in others if other.startswith(start)}
        for name, others in graph.items()
        if name.startswith(start)
    }
    assert used.keys() > TASKS | RUNS
    assert "task" in used["imdb"]
    assert "compared" in used["ablation"]
    for name, others in used.items():
        later = set() if name in RUNS else RUNS if name in TASKS else TASKS | RUNS
        assert not others & later, name


@pytest.mark.parametrize(
    "last",
    [
        "import made.a",
        "from made import a",
        "from . import a",
        "def f():\n    from made.a import x",
        "if TYPE_CHECKING:\n    from .a import x",
    ],
)
def test_detects_an_import_cycle(tmp_path: Path, last: str) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    for name, text in (("__init__", ""), ("a", "from made.b import x"), ("b", "from made.c import x"), ("c", last)):
        (folder / f"{name}.py").write_text(text)
    assert _circle(_imports(folder), "made.a") == ["made.a", "made.b", "made.c", "made.a"]
    assert _circle(_imports(folder), "made") == []


def test_no_optional_library_is_imported_before_it_is_used() -> None:
    code = f"""
import importlib, pkgutil, sys
for room in {ROOMS}:
    for module in pkgutil.iter_modules(importlib.import_module(room).__path__, room + "."):
        importlib.import_module(module.name)
assert "captum_astro.training.imdb" in sys.modules
print(*sorted({OPTIONAL} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


@pytest.mark.parametrize(
    ("library", "words"),
    [
        ("tokenizers", ("train", "imdb", "--batch-size", "4")),
        ("pyarrow", ("train", "cifar10")),
        ("pandas", ("ablate", "imdb")),
    ],
)
def test_missing_library_is_named(monkeypatch, capsys, tmp_path: Path, library: str, words) -> None:
    imdb_parquet(tmp_path)
    cifar_parquet(tmp_path)
    monkeypatch.setitem(sys.modules, library, None)
    code, out = run_command(monkeypatch, capsys, *words, "--data", tmp_path, "--out", tmp_path / "out")
    assert code == 2
    assert f"needs {library}, which is not installed: " in out
    assert 'pip install "captum-astro[train]"' in out
