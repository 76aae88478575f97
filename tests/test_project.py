"""Files that must agree with pyproject.toml: the lowest versions that CI installs, and the list of licences."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def _requirements(keys: str) -> list[tuple[str, str]]:
    """Name and lowest version of what the lists of these names hold. Python 3.10 has no reader of TOML."""
    lists = re.findall(rf"^(?:{keys}) = \[(.*?)\]$", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)
    return re.findall(r'"([\w.-]+)(?:\[\w+\])?>=([\d.]+)', "".join(lists))


def test_ci_installs_the_lowest_versions() -> None:
    lines = (ROOT / ".ci" / "oldest.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    lowest = dict(_requirements("dependencies|test"))
    assert len(lowest) > 20
    assert pins.keys() == lowest.keys()
    for name, pin in pins.items():
        # 1.5.0 is 1.5
        assert re.sub(r"(\.0)+$", "", pin) == re.sub(r"(\.0)+$", "", lowest[name]), name


def test_every_dependency_has_its_licence_listed() -> None:
    page = (ROOT / "docs" / "licences.md").read_text()
    named = set(re.findall(r"[\w-]+", page))
    wanted = {name for name, _ in _requirements("dependencies|test|clickme|segmentation|peers|lint|docs|notebooks")}
    assert {"torch", "lxt", "mkdocs-material", "h5py", "nbclient"} <= wanted
    assert wanted <= named, wanted - named
