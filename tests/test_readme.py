"""The README's and the docs' Python runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCKS = [
    (page.relative_to(ROOT), number, code)
    for page in PAGES
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.mark.parametrize(
    ("page", "code"), [(page, code) for page, _, code in BLOCKS], ids=[f"{p}:{n}" for p, n, _ in BLOCKS]
)
def test_code_runs(page: Path, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # published weights cannot be fetched everywhere; the code is the same without
    exec(compile(code.replace("pretrained=True", "pretrained=False"), str(page), "exec"), {"__name__": "readme"})
