"""The code in the README and the documentation runs as written."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer.main
from torch import nn

from captum_astro.cli import app
from captum_astro.models import bundled
from captum_astro.models.astromorphic_registered import CIFAR10
from captum_astro.models.loading import load_model

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
BUNDLED = (*bundled.MODELS.values(), bundled.PIT, CIFAR10)
SETUP = "before each block"  # a block with this title is prepended to every other one of its page


def _blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """Title and code of a page's blocks."""
    return [(title, code) for found, title, code in BLOCK.findall(page.read_text()) if found == language]


def _random_unless_bundled(name: str) -> nn.Module:
    return load_model(name, pretrained=name in BUNDLED)


def _offline(code: str) -> str:
    """Replace published weights, which cannot be downloaded everywhere; those in the package are kept."""
    lines = [
        line if any(x in line for x in BUNDLED) else re.sub(r"pretrained=(True|\"\w+\")", "pretrained=False", line)
        for line in code.splitlines()
    ]
    return "\n".join(lines)


def _alone() -> list[tuple[Path, int, str]]:
    """The Python blocks of pages whose blocks are independent."""
    found = []
    for page in PAGES:
        blocks = _blocks(page, "python")
        if any(title.startswith("captum_astro/") for title, _ in blocks):
            continue
        setup = "".join(code for title, code in blocks if title == SETUP)
        found += [(page, n, setup + code) for n, (title, code) in enumerate(blocks) if title != SETUP]
    return found


FOLLOWED = [page for page in PAGES if any(t.startswith("captum_astro/") for t, _ in _blocks(page, "python"))]
# files shown on a page, and whether each is new; for a metric the second is optional
FILES = {
    "metric.md": {"captum_astro/metrics/centre.py": True, "captum_astro/metrics/quantus/centre.py": True},
    "method.md": {
        "captum_astro/functional/max_head.py": True,
        "captum_astro/attr/max_head.py": True,
        "captum_astro/__init__.pyi": False,
    },
    "family.md": {"pooled_vit.py": True, "captum_astro/layouts/pooled_vit.py": True},
    "dataset.md": {"captum_astro/data/pairs.py": True},
}
COMMANDS = [  # a backslash continues a line
    (page, line)
    for page in PAGES
    for _, code in _blocks(page, "console")
    for line in code.replace("\\\n", "").splitlines()
]


@pytest.mark.parametrize(
    ("page", "code"), [(p, c) for p, _, c in _alone()], ids=[f"{p.relative_to(ROOT)}:{n}" for p, n, _ in _alone()]
)
def test_code_runs(page: Path, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for library in re.findall(r"^(?:import|from) (lightning|open_clip|transformers)\b", code, re.MULTILINE):
        pytest.importorskip(library, reason=f"{library} is not installed")
    monkeypatch.setattr("captum_astro.explaining.explain.load_model", _random_unless_bundled)
    shutil.copy(ROOT / "docs" / "pictures" / "cat.jpg", tmp_path)
    if "finetuned.pt" in code:
        torch.save(load_model("vit_tiny_patch16_224", pretrained=False, num_classes=2).state_dict(), "finetuned.pt")
    exec(compile(_offline(code), str(page), "exec"), {"__name__": "readme"})


def test_the_usual_scripts_are_short() -> None:
    scripts = _blocks(ROOT / "docs" / "recipes.md", "python")
    assert len(scripts) == 10
    for _, code in scripts:
        assert len([line for line in code.splitlines() if line.strip()]) <= 6, code


@pytest.mark.parametrize("page", FOLLOWED, ids=lambda p: p.name)
def test_howto_pages_can_be_followed(page: Path, tmp_path: Path) -> None:
    """Files shown on the page are written into a copy of the package, then the other blocks run in order.

    The pages on a metric and on a dataset end in a run of the benchmark with them; that on a family begins with a
    model, which stands for one of timm's.
    """
    shutil.copytree(ROOT / "captum_astro", tmp_path / "captum_astro", ignore=shutil.ignore_patterns("__pycache__"))
    steps: list[str] = []
    written: dict[str, bool] = {}
    for title, code in _blocks(page, "python"):
        if title:
            written.setdefault(title, not (tmp_path / title).exists())
            with (tmp_path / title).open("a") as file:  # append to an existing file, or create a new one
                file.write(code)
        else:
            steps.append(_offline(code))
    assert steps
    assert page.name not in FILES or written == FILES[page.name]
    found = subprocess.run(
        [sys.executable, "-c", "\n".join(steps)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=[f"{p.relative_to(ROOT)}:{c[:60]}" for p, c in COMMANDS])
def test_command_exists(page: Path, line: str) -> None:
    for part in re.split(r"&&|\|", line.strip()):
        words = shlex.split(part, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if not words:
            continue
        if words[0] == "captum-astro":
            _parse(words[1:])
        elif words[:2] == ["pip", "install"]:
            _extras(words[2:])
        elif words[:2] == ["python", "-m"] and words[2].startswith("tests."):
            assert (ROOT / (words[2].replace(".", "/") + ".py")).exists(), line
        elif words[0] == "python" and words[1].endswith(".py"):
            assert (ROOT / words[1]).exists(), line


def _parse(words: list[str]) -> None:
    """Check a command's path, its options, and the number of its arguments."""
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        if words[:1] == ["--help"]:
            return
        assert {*words[:1]} & {*command.commands}, f"no command {words[:1]}"
        command, words = command.commands[words[0]], words[1:]
    options = {name: p for p in command.params for name in (*p.opts, *p.secondary_opts) if name.startswith("-")}
    places = [p for p in command.params if not any(name.startswith("-") for name in p.opts)]
    given, used, words = 0, set(), [*words]
    while words:
        word = words.pop(0)
        if word == "--help":
            return
        if not word.startswith("-"):
            given += 1
            continue
        name, equals, _ = word.partition("=")
        assert name in options, f"{command.name} has no option {name}"
        used.add(options[name].name)
        if not equals and not options[name].is_flag:
            assert words, f"{name} needs a value"
            words.pop(0)
    many = any(p.nargs == -1 for p in places)
    assert sum(p.required for p in places) <= given, f"{command.name} lacks an argument"
    assert many or given <= len(places), f"{command.name} takes {len(places)} arguments"
    missing = {p.name for p in options.values() if p.required} - used
    assert not missing, f"{command.name} needs {missing}"


def _extras(words: list[str]) -> None:
    section = (ROOT / "pyproject.toml").read_text().split("[project.optional-dependencies]")[1].split("\n[")[0]
    known = re.findall(r"^([\w-]+) = ", section, re.MULTILINE)
    for word in words:
        found = re.search(r"\[([\w,-]+)\]", word)
        assert found is None or set(found[1].split(",")) <= set(known), word
