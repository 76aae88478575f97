"""What is done as soon as a package is imported."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from captum_astro.after_import import after_import


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package that says when it is executed."""
    file = tmp_path / "executed_late" / "__init__.py"
    file.parent.mkdir()
    file.write_text("import builtins\nLOG = []\nLOG.append('executed')\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = list(sys.meta_path)
    yield file
    sys.meta_path[:] = before
    sys.modules.pop("executed_late", None)


def _note() -> None:
    sys.modules["executed_late"].LOG.append("after")


def test_it_is_called_once_and_nothing_is_left(package: Path) -> None:
    finders = list(sys.meta_path)
    after_import("executed_late", _note)
    module = importlib.import_module("executed_late")
    assert module.LOG == ["executed", "after"]
    assert list(sys.meta_path) == finders
    assert module.__spec__ is not None
    assert type(module.__spec__.loader) is type(module.__loader__) is type(find_spec("this").loader)
    assert module.__file__ == str(package)
    importlib.reload(module)
    assert module.LOG == ["executed"]


def test_several_functions_for_one_package(package: Path) -> None:
    after_import("executed_late", _note)
    after_import("executed_late", _note)
    assert importlib.import_module("executed_late").LOG == ["executed", "after", "after"]


def test_a_package_that_is_imported_already(package: Path) -> None:
    module = importlib.import_module("executed_late")
    after_import("executed_late", _note)
    assert module.LOG == ["executed", "after"]


def test_a_package_that_is_missing_first_or_cannot_be_executed(package: Path) -> None:
    text = package.read_text()
    package.unlink()
    package.parent.rmdir()
    after_import("executed_late", _note)
    assert find_spec("executed_late") is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("executed_late")
    package.parent.mkdir()
    package.write_text("raise RuntimeError('broken')\n")
    importlib.invalidate_caches()
    with pytest.raises(RuntimeError, match="broken"):
        importlib.import_module("executed_late")
    package.write_text(text + "\n\n")
    importlib.invalidate_caches()
    assert importlib.import_module("executed_late").LOG == ["executed", "after"]


@pytest.mark.parametrize("order", ["captum_astro, timm", "timm, captum_astro", "captum_astro.models, timm"])
def test_the_models_are_registered_in_either_order(order: str) -> None:
    program = (
        f"import {order}; "
        "assert timm.create_model('scenes_vit_tiny_patch4_64', pretrained=True).head.out_features == 10; "
        "assert timm.is_model_pretrained('scenes_vit_tiny_patch4_64'); "
        "assert timm.create_model('astromorphic_vit_tiny_patch16_224', depth=1).num_classes == 1000"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_only_looking_for_timm_registers_nothing_but_importing_it_does() -> None:
    program = (
        "import captum_astro, importlib.util; assert importlib.util.find_spec('timm'); import timm; "
        "assert timm.is_model('astromorphic_vit_tiny_patch16_224')"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
