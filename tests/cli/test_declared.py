"""What is read of the methods' files is what the classes say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import captum_astro
from captum_astro import explainers
from captum_astro.cli import _declared
from captum_astro.cli._declared import declared


def test_methods_are_read_from_their_files() -> None:
    found = {one.name: (one.family, one.needs_gradient, one.source) for one in declared()}
    assert found == {one.name: (one.family, one.needs_gradient, one.source) for one in explainers()}
    assert list(found) == [one.name for one in explainers()]


def test_neither_torch_nor_a_method_is_imported() -> None:
    code = (
        "import sys; from captum_astro.cli._declared import declared; assert declared(); "
        "print(*sorted({'torch', 'captum', 'captum_astro.attr.vtranm'} & {*sys.modules}))"
    )
    root = Path(captum_astro.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package whose method inherits over two files."""
    (tmp_path / "attr").mkdir()
    (tmp_path / "__init__.pyi").write_text(
        "from captum_astro.attr.made import Made as Made\nfrom captum_astro.attr.base import Base as Base\n"
        "from captum_astro.viz import Shown as Shown\n"
    )
    (tmp_path / "viz.py").write_text("class Shown:\n    source = 'a figure'\n")
    (tmp_path / "attr" / "base.py").write_text(
        "from typing import ClassVar\nclass Root:\n    family: ClassVar[str] = 'attention'\n    needs_gradient = True\n"
        "class Base(Root):\n    family = 'gradient'\n    width = 2 + 3\n"
    )
    (tmp_path / "attr" / "made.py").write_text(
        "from captum_astro.attr.base import Base\nclass Made(Base):\n    needs_gradient: bool = False\n"
        "    source = 'A paper'\n    def source_of(self): pass\n"
    )
    monkeypatch.setattr(_declared, "_PACKAGE", tmp_path)
    return tmp_path


def test_what_is_inherited_and_what_is_no_method(package: Path) -> None:
    assert declared() == [("Made", "gradient", False, "A paper")]  # Base has no source, Shown is not in attr
