"""Lazy imports: help without torch, automatic registration of models, correct public names."""

from __future__ import annotations

import ast
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import captum_astro
from captum_astro.extras import EXTRAS

PACKAGE = Path(captum_astro.__file__).parent
HEAVY = {"captum", "matplotlib", "numpy", "pandas", "pyarrow", "quantus", "scipy", "sklearn", "timm", "torch"}


def _python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_of_every_command_imports_nothing_heavy() -> None:
    out = _python(
        f"""
import sys
from typer.main import get_command
from typer.testing import CliRunner
from captum_astro.cli import app

def commands(command, path=()):
    yield path
    for name, inner in getattr(command, "commands", {{}}).items():
        yield from commands(inner, (*path, name))

for path in commands(get_command(app)):
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0 and "Usage" in result.output, (path, result.output, result.exception)
    print(*path)
    assert not {HEAVY} & set(sys.modules), (path, {HEAVY} & set(sys.modules))
"""
    )
    assert {"explain", "check", "train", "train cifar10", "vita search"} <= set(out.splitlines())


def test_core_imports_no_optional_library() -> None:
    _python(
        f"""
import sys
from captum_astro import VTranM, ViTA, explain, explainers, viz, check
import captum_astro.cli, captum_astro.data.specs, captum_astro.metrics, captum_astro.training.run, captum_astro.demo
found = {{*{tuple(EXTRAS)}, "sklearn"}} & {{module.split(".")[0] for module in sys.modules}}
assert not found, found
"""
    )


def test_the_core_works_without_the_libraries_of_the_extras() -> None:
    """The checks of ``.ci/run core``, here with the libraries hidden instead of missing."""
    script = PACKAGE.parent / ".ci" / "core.py"
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, script, "--hide"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("the core works without any extra\n")


def test_a_module_of_models_may_be_the_first_import() -> None:
    # its own import of timm must not ask for the module again while half of it is there
    _python(
        "from captum_astro.models.astromorphic import AstromorphicBlock; import timm;"
        "timm.create_model('astromorphic_vit_cifar10', depth=1)"
    )


def test_public_names_are_those_of_the_stub() -> None:
    imports = [
        node for node in ast.parse((PACKAGE / "__init__.pyi").read_text()).body if isinstance(node, ast.ImportFrom)
    ]
    names = [alias.name for node in imports for alias in node.names]
    assert all(alias.asname == alias.name for node in imports for alias in node.names)  # what type checkers re-export
    assert sorted(names) == sorted(set(names)) == sorted(captum_astro.__all__) == sorted(dir(captum_astro))
    for name in names:
        value = getattr(captum_astro, name)
        assert value.__name__.split(".")[-1] == name
        if name != "viz":
            assert pickle.loads(pickle.dumps(value)) is value
    with pytest.raises(AttributeError, match="Magic"):
        _ = captum_astro.Magic
