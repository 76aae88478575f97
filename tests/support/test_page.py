from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm

from captum_astro.support.page import page
from captum_astro.support.sweep import METHODS, Sweep, families
from tests.commands import run_command

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_in_the_documentation_is_that_of_the_results() -> None:
    text = (DOCS / "timm.json").read_text()
    if f'"timm": "{timm.__version__}"' not in text:
        pytest.skip(f"docs/timm.json is of another timm than {timm.__version__}")
    results = Sweep(DOCS / "timm.json")
    assert page(results) == (DOCS / "timm.md").read_text()
    assert set(results.names) == set(families())
    assert len(text) < 300_000


def _kind(**found: Any) -> dict[str, Any]:
    return {"tried": "tnt_s_patch16_224", "model_class": "TNT", "parameters": 1, **found}


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        (_kind(), "- `tnt_s_patch16_224`: not tried"),
        (_kind(seconds=300.0, error="No result after 300 s."), "    - failed: No result after 300 s."),
        (
            _kind(
                seconds=1.0, image=[3, 64, 96], status={"VTranM": "refused", "LRP": "exact", "AttnLRP": "exact"},
                reasons={"a_b has no <layout>": ["VTranM"]}, conserved={"LRP": 0.987},
            ),
            "- `tnt_s_patch16_224` (tried: `tnt_s_patch16_224`, 64 x 96)\n"
            "    - refused: VTranM. a\\_b has no \\<layout\\>\n    - exact: LRP (0.99 at the pixels), AttnLRP",
        ),
    ],
)  # fmt: skip
def test_a_kind_says_what_was_found(tmp_path: Path, kind: dict[str, Any], line: str) -> None:
    results = Sweep(tmp_path / "sweep.json")
    results.names, results.kinds = {"tnt_s_patch16_224": "a"}, {"a": kind}
    if "status" in kind:
        kind["status"] |= {method: "exact" for method in METHODS if method not in kind["status"]}
        line = line.removesuffix("AttnLRP")
    assert line in page(results)


def test_families_count_their_names(monkeypatch, capsys, tmp_path: Path) -> None:
    results = Sweep(tmp_path / "sweep.json")
    names = ["tnt_s_patch16_224", "tnt_b_patch16_224", "resnet18"]
    results.names = dict(zip(names, "aba", strict=True))
    statuses = [dict.fromkeys(METHODS, status) for status in ("exact", "refused")]
    results.kinds = {
        digest: _kind(seconds=1.0, status=status, reasons={}, conserved={})
        for digest, status in zip("ab", statuses, strict=True)
    }
    results.save()
    files = ["--out", tmp_path / "sweep.json", "--page", tmp_path / "page.md"]
    assert run_command(monkeypatch, capsys, "sweep", "resnet18", *files) == (0, "")
    written = (tmp_path / "page.md").read_text()
    assert f"| resnet | 1 |{' exact |' * len(METHODS)}\n" in written
    assert f"| tnt | 2 |{' 1 exact, 1 refused |' * len(METHODS)}\n" in written
