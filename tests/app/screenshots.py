"""Draw the pictures of the page on the app: ``python -m tests.app.screenshots docs/pictures``."""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.app.serving import serve
from tests.app.visitor import Page, chromium


def main(folder: Path) -> None:
    """Draw a scene with the maps of three methods, and two classes of it after a click on a patch."""
    with tempfile.TemporaryDirectory() as made, chromium() as browser:
        offered = Path(made, "offered")
        offered.mkdir()
        with serve(offered) as served:
            page = Page(browser, served, 1240)
            page.tab.click("#scene")
            page.wait_for_maps(1)
            for name in ("TransformerMM", "AttnLRP"):
                page.tab.click(f"[id^=methods-] label:has-text('{name}')")
            page.tab.click("#explain")
            page.wait_for_maps(3)
            _save(page, folder / "app.jpg")

            for name in ("TransformerMM", "AttnLRP"):
                page.tab.click(f"[id^=methods-] label:has-text('{name}')")
            page.choose("#class-b", "3")
            page.tab.click("#explain")
            page.tab.wait_for_selector("#maps :text('minus')")
            page.tab.locator("#maps .ca-frame").first.click()
            page.tab.wait_for_selector("#maps .ca-token")
            _save(page, folder / "app_classes.jpg", "#maps")


def _save(page: Page, file: Path, part: str = "body") -> None:
    """Save a part of the page."""
    page.tab.evaluate("scrollTo({top: 0, behavior: 'instant'})")
    page.tab.mouse.move(0, 0)
    seen = page.tab.screenshot() if part == "body" else page.tab.locator(part).screenshot()
    Image.open(io.BytesIO(seen)).convert("RGB").save(file, quality=88, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
