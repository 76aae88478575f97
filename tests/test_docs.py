"""The documentation agrees with the code."""

from __future__ import annotations

import re
import subprocess
import traceback
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml

from captum_astro import VTranM, explainers
from captum_astro.functional import vtranm

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
METHODS = [explainer.name for explainer in explainers()]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_page(name: str) -> None:
    page = DOCS / "methods" / f"{name.lower()}.md"
    text = re.sub(r"\A---\n.*?\n---\n\n", "", page.read_text(), flags=re.DOTALL)  # without its front matter
    assert text.startswith(f"# {name}\n")
    for part in ("Source: ", "## Equation", "$$", "## In code", "](../pictures/methods/"):
        assert part in text, part
    assert re.search(r"^## When it (fails|misleads)$", text, re.MULTILINE)
    assert f"methods/{name.lower()}.md" in (ROOT / "mkdocs.yml").read_text()
    assert f"](methods/{name.lower()}.md)" in (DOCS / "methods.md").read_text()


def test_every_method_page_has_a_method() -> None:
    assert {page.stem for page in (DOCS / "methods").glob("*.md")} == {name.lower() for name in METHODS}


def test_pictures_are_small_and_shown() -> None:
    pages = "".join(page.read_text() for page in PAGES)
    for picture in [file for kind in ("png", "svg", "jpg") for file in DOCS.rglob(f"*.{kind}")]:
        assert picture.stat().st_size < (400_000 if picture.suffix == ".jpg" else 200_000), picture
        assert f"{picture.name})" in pages, f"no page shows {picture}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_on_a_page_fits(page: Path) -> None:
    for code in re.findall(r"^```\w[^\n]*\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
        assert not [line for line in code.splitlines() if len(line) > 80]


def _written_in(language: str) -> list[Any]:
    """The blocks of a language on all pages."""
    block = re.compile(rf"^```{language}\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    return [
        pytest.param(code, id=f"{page.relative_to(ROOT)}:{number}")
        for page in PAGES
        for number, code in enumerate(block.findall(page.read_text()))
    ]


@pytest.mark.parametrize("code", _written_in("bash"))
def test_shell_scripts_parse(code: str) -> None:
    for script in (code, *re.findall(r"bash -c '(.*?)'", code, re.DOTALL)):
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("code", _written_in("yaml"))
def test_yaml_loads(code: str) -> None:
    assert all(isinstance(document, dict) for document in yaml.safe_load_all(code))


def test_titles_are_unique() -> None:
    titles = [page.read_text().split("# ", 1)[1].splitlines()[0] for page in PAGES if page != DOCS / "index.md"]
    assert not {title for title in titles if titles.count(title) > 1}


def test_the_guide_for_language_models_leads_to_pages() -> None:
    links = re.findall(r"\]\(([\w/-]+)/\)", (DOCS / "llms.txt").read_text())
    assert len(links) > 15
    missing = [link for link in links if link != "notebooks" and not (DOCS / f"{link}.md").exists()]
    assert not missing


def test_the_path_from_a_call_to_its_equation(monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[str] = []
    update = vtranm.attention_update

    def seen(*args: Any) -> torch.Tensor:
        if not met:
            package = ROOT / "captum_astro"
            frames = [Path(f.filename) for f in traceback.extract_stack()]
            files = [str(f.relative_to(ROOT)) for f in frames if f.is_relative_to(package)]
            met.extend(dict.fromkeys([*files, str(Path(vtranm.__file__).relative_to(ROOT))]))
        return update(*args)

    monkeypatch.setattr(vtranm, "attention_update", seen)
    small = {"img_size": 16, "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 2, "num_classes": 3}
    model = timm.create_model("vit_tiny_patch16_224", **small).eval()
    VTranM(model).attribute(torch.rand(1, 3, 16, 16), target=1)
    named = re.findall(r"^\d\. `(captum_astro/[\w/]+\.py)`", (DOCS / "architecture.md").read_text(), re.MULTILINE)
    assert named == met
    assert len(named) <= 4


def _rooms() -> dict[str, str]:
    """What each room may import, in the words of the architecture page."""
    page = (DOCS / "architecture.md").read_text().split("## Package layout")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    return {
        name.rstrip("/"): row[2] if len(row) > 2 else "" for row in rows for name in re.findall(r"`([\w/.]+)`", row[0])
    }


ROOMS = _rooms()


def test_architecture_lists_every_package() -> None:
    packages = {p.name for p in (ROOT / "captum_astro").iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    files = {file.name for file in (ROOT / "captum_astro").glob("[a-z]*.py")}
    assert ROOMS.keys() == packages | files


@pytest.mark.parametrize("name", ROOMS)
def test_imports_match_the_architecture_page(name: str) -> None:
    path = ROOT / "captum_astro" / name
    code = "".join(file.read_text() for file in ([path] if path.is_file() else path.rglob("*.py")))
    met = set(re.findall(r"^\s*(?:from|import) captum_astro\.(\w+)", code, re.MULTILINE)) - {path.stem}
    if said := re.fullmatch(r"all(?: but (.*))?", ROOMS[name]):
        assert not met & set(re.findall(r"\w+", said[1] or ""))
    else:
        assert ", ".join(sorted(met)) == ROOMS[name]
