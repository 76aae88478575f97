"""The script that makes the pages of the documentation, with recorders in the place of the programs that it starts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import pytest

from captum_astro.evaluation.specification.metrics import metrics_of
from captum_astro.evaluation.specification.presets import preset
from captum_astro.models.bundled import ASTROMORPHIC, PIT, PLAIN

DOCS = Path(__file__).parents[3] / "docs"
SCRIPT = DOCS / "evidence" / "make.sh"
MODELS = {"deit_tiny_patch16_224", PLAIN, PIT, ASTROMORPHIC, "astromorphic_cifar10_tiny_patch4_32"}
PAGES = {"photographs", "scenes", "gaze", "tables"}


@pytest.fixture
def started(tmp_path: Path) -> list[list[str]]:
    """The words of each program that the script starts."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    log = tmp_path / "log"
    for name in ("torchrun", "python"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!{bash}\nprintf "%s\\n" "$@" "" >> "{log}"\n')
        program.chmod(0o755)
    places = {"DATA": "/data", "RUNS": str(tmp_path / "runs"), "TRIAL": "3", "PAGES": str(tmp_path)}
    found = {**os.environ, **places, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([bash, str(SCRIPT)], check=True, env=found, stdout=subprocess.DEVNULL)
    return [words.splitlines() for words in log.read_text().split("\n\n") if words]


def _value(words: list[str], option: str) -> str:
    return words[words.index(option) + 1] if option in words else ""


def test_every_page_is_made_of_its_own_runs(started: list[list[str]]) -> None:
    ready: list[str] = []
    pages: dict[str, list[str]] = {}
    for words in started:
        if "bench" in words:
            ready.append(_value(words, "--out"))
        else:
            runs = words[words.index("evidence") + 1 : words.index("--title")]
            assert runs == ready
            pages[Path(_value(words, "--out")).stem] = runs
            ready = []
    assert not ready
    assert pages.keys() == PAGES
    runs = [run for own in pages.values() for run in own]
    assert len(set(runs)) == len(runs)
    index = (DOCS / "evidence" / "index.md").read_text()
    parts = re.findall(r"^(\w+)\(\) \{\n", SCRIPT.read_text(), re.MULTILINE)
    assert sorted(re.findall(r"^\| `(\w+)` \|", index, re.MULTILINE)) == sorted(parts)


def test_what_it_asks_for_exists(started: list[list[str]]) -> None:
    benches = [words for words in started if "bench" in words]
    for words in benches:
        assert words[-2:] == ["-n", "3"]  # a trial
        assert set(_value(words, "-M").split(",")) <= MODELS
        if name := _value(words, "--preset"):
            assert preset(name).chosen(_value(words, "--part") or None)
        else:
            assert metrics_of(_value(words, "--metrics"))
    assert len(benches) > 10


def test_the_navigation_names_the_pages_that_exist(tmp_path: Path) -> None:
    spec = spec_from_file_location("hook", DOCS / "_site" / "evidence.py")
    assert spec is not None
    assert spec.loader is not None
    hook = module_from_spec(spec)
    spec.loader.exec_module(hook)
    (tmp_path / "evidence").mkdir()
    for name in ("scenes", "index", "gaze"):
        (tmp_path / "evidence" / f"{name}.md").write_text("# A page\n")
    first = {"How it is made": "evidence/index.md"}
    config = SimpleNamespace(docs_dir=str(tmp_path), nav=[{"Home": "index.md"}, {"Evidence": [first]}])
    assert hook.on_config(config).nav[1] == {"Evidence": [first, "evidence/gaze.md", "evidence/scenes.md"]}
