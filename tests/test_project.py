"""Files that must agree with pyproject.toml: the lowest versions that CI installs, and the list of licences."""

from __future__ import annotations

import re
from pathlib import Path

from captum_astro.extras import _PACKAGES, EXTRAS

ROOT = Path(__file__).parents[1]


def _requirements(keys: str) -> list[tuple[str, str]]:
    """Name and lowest version of the dependencies in these lists. Python 3.10 has no TOML parser."""
    lists = re.findall(rf"^(?:{keys}) = \[(.*?)\]$", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)
    return re.findall(r'"([\w.-]+)(?:\[\w+\])?>=([\d.]+)', "".join(lists))


def _extras() -> dict[str, str]:
    """Each extra's list, as it is written."""
    section = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1].split("\n[")[0]
    return dict(re.findall(r"^(\w+) = \[(.*)\]$", section, re.MULTILINE))


def test_messages_name_the_extra_that_provides_a_library() -> None:
    extras = _extras()
    for library, named in EXTRAS.items():
        package = _PACKAGES.get(library, library)
        assert {name for name, text in extras.items() if f'"{package}>' in text} == set(named), library


def test_core_contains_no_optional_code() -> None:
    core = {name for name, _ in _requirements("dependencies")}
    assert {"captum", "torch", "timm", "numpy"} <= core
    assert not core & {library.replace("_", "-") for library in EXTRAS}
    extras = _extras()
    assert extras["all"] == '"captum-astro[bench,train,clickme,segmentation]"'
    assert extras["test"].startswith('"captum-astro[all]"')  # the README's one command


def test_ci_installs_the_lowest_versions() -> None:
    lines = (ROOT / ".ci" / "oldest.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    lowest = dict(_requirements("dependencies|bench|train|clickme|segmentation|app|test"))
    assert len(lowest) > 20
    assert pins.keys() == lowest.keys()
    for name, pin in pins.items():
        # 1.5.0 is 1.5
        assert re.sub(r"(\.0)+$", "", pin) == re.sub(r"(\.0)+$", "", lowest[name]), name


def test_every_dependency_has_its_licence_listed() -> None:
    page = (ROOT / "docs" / "licences.md").read_text()
    named = set(re.findall(r"[\w-]+", page))
    wanted = {name for name, _ in _requirements("|".join(["dependencies", *_extras()]))}
    assert {"torch", "lxt", "mkdocs-material", "h5py", "nbclient"} <= wanted
    assert wanted <= named, wanted - named
