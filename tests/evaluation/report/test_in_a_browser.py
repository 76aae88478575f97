"""The report in headless chromium: its script runs, tables sort, and a phone needs no sideways scrolling."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from captum_astro.evaluation.report.html import render
from tests.evaluation import synthetic

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH")

# The report is a frame of this page, as wide as a phone or a desk, so that no script has to be put into the report.
_FRAME = """<!DOCTYPE html><meta charset="utf-8"><body><iframe style="width:{width}px;height:800px;border:0"
 srcdoc="{page}"></iframe><pre id="found"></pre><script>
document.querySelector("iframe").addEventListener("load", (event) => {{
  const found = {{ errors: [] }};
  try {{
    const inside = event.target.contentDocument;
    {work}
  }} catch (error) {{ found.errors.push(String(error)); }}
  document.getElementById("found").textContent = JSON.stringify(found);
}});
</script></body>"""
_WIDTHS = """
    const root = inside.documentElement;
    found.inner = event.target.contentWindow.innerWidth;
    found.scroll = root.scrollWidth;
    found.boxes = [...inside.querySelectorAll(".scroll")].map((box) => [box.scrollWidth, box.clientWidth]);
    found.ready = [...inside.querySelectorAll("table.sortable")].map((table) => table.dataset.sortable);
    const parts = [...inside.querySelectorAll("main > section > *, h3, h4, figure, .sample")];
    found.outside = parts.filter((part) => part.getBoundingClientRect().right > root.clientWidth + 0.5).length;
    found.broken = [...inside.images].filter((image) => image.complete && !image.naturalWidth).length;
"""
_CLICKS = """
    const table = inside.querySelector("table.sortable");
    const state = () => ({
      sorted: [...table.tHead.rows[0].cells].map((head) => head.getAttribute("aria-sort")),
      names: [...table.tBodies[0].rows].map((row) => row.cells[0].textContent),
      values: [...table.tBodies[0].rows].map((row) => row.cells[1].dataset.value),
    });
    const buttons = [...table.querySelectorAll("thead button")];
    found.states = [state()];
    for (const column of [1, 1, 0, 3]) { buttons[column].click(); found.states.push(state()); }
    buttons[0].focus();
    found.focus = inside.activeElement === buttons[0];
    const legend = inside.querySelector(".legend button[data-line='2']");
    legend.click();
    found.pressed = legend.getAttribute("aria-pressed");
    found.dim = [...inside.querySelectorAll("g.dim")].map((line) => line.dataset.line);
    legend.click();
    found.dimAfter = inside.querySelectorAll("g.dim").length;
    const dialog = inside.querySelector("dialog");
    const sample = inside.querySelector(".sample");
    sample.querySelectorAll("button")[2].click();
    found.open = dialog.open;
    found.large = [...dialog.querySelectorAll("img")].map((image) => image.src);
    found.pair = [...sample.querySelectorAll("img")].map((image) => image.src).filter((_, i) => i === 0 || i === 2);
    found.words = dialog.querySelector("p").textContent;
    dialog.querySelector("button").click();
    found.closed = !dialog.open;
"""


def _in_browser(folder: Path, page: str, width: int, work: str) -> dict[str, Any]:
    file = folder / "frame.html"
    file.write_text(_FRAME.format(width=width, page=html.escape(page), work=work), encoding="utf-8")
    command = [
        str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        f"--user-data-dir={folder / 'profile'}", "--window-size=1400,900", "--virtual-time-budget=5000", "--dump-dom",
        file.as_uri(),
    ]  # fmt: skip
    dump = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True).stdout
    found: dict[str, Any] = json.loads(html.unescape(re.findall(r'<pre id="found">(.*?)</pre>', dump, re.DOTALL)[0]))
    assert found["errors"] == []
    return found


@pytest.fixture(scope="module")
def page() -> str:
    long = "AMethodWithoutEnd" * 6
    rows = synthetic.renamed(synthetic.rows(8, failing=("LRP", 3)), {"Random": long})
    rows.loc[rows["error"].notna(), "error"] = "RuntimeError: " + "x" * 300
    maps = synthetic.renamed(synthetic.maps(8), {"Random": long, "image-0.png": "n" * 200 + ".png"})
    return render(rows, maps, {"configuration": {"data": "scenes:" + "d" * 200}}, bootstrap=20)


@pytest.mark.parametrize("width", [390, 1280])
def test_page_fits_the_window(tmp_path: Path, page: str, width: int) -> None:
    found = _in_browser(tmp_path, page, width, _WIDTHS)
    assert found["inner"] == width
    assert found["scroll"] <= width
    assert found["outside"] == 0
    assert found["broken"] == 0
    assert set(found["ready"]) == {"ready"}
    wider = [scroll > client for scroll, client in found["boxes"]]
    assert any(wider) or width > 390  # on a phone wide tables scroll in their boxes


def test_tables_sort_and_curves_stand_out(tmp_path: Path, page: str) -> None:
    found = _in_browser(tmp_path, page, 1280, _CLICKS)
    before, up, down, by_name, other = found["states"]
    assert set(before["sorted"]) == {"none"}
    # the first column is ADCC: higher is better, so the highest comes first
    assert up["sorted"][1] == "descending"
    assert up["values"] == sorted(up["values"], key=float, reverse=True)
    assert before["names"] != by_name["names"]  # by rank
    assert down["sorted"][1] == "ascending"
    assert down["values"] == up["values"][::-1]
    assert by_name["sorted"][:2] == ["ascending", "none"]
    assert by_name["names"] == sorted(by_name["names"], key=str.lower)
    assert other["sorted"][3] == "ascending"  # average drop: the lowest first
    assert found["focus"]
    assert found["pressed"] == "true"
    assert set(found["dim"]) == {"0", "1", "3"}
    assert found["dimAfter"] == 0
    assert found["open"]
    assert found["closed"]
    assert found["large"] == found["pair"]
    assert "image-" in found["words"]
    assert "three; " in found["words"]
