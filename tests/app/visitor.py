"""A visitor with a browser: Chromium, driven by Playwright."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.app.serving import Served

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 120_000  # milliseconds, on a busy machine
DROP = """([data, name]) => {
  const bytes = Uint8Array.from(atob(data), letter => letter.charCodeAt(0)), held = new DataTransfer();
  held.items.add(new File([bytes], name, {type: "image/png"}));
  const zone = document.querySelector("#drop button:has(input)");
  for (const kind of ["dragenter", "dragover", "drop"])
    zone.dispatchEvent(new DragEvent(kind, {dataTransfer: held, bubbles: true, cancelable: true}));
}"""


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A running Chromium without a window."""
    from playwright.sync_api import sync_playwright

    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=root)
        yield opened
        opened.close()


class Page:
    """One visitor's tab, with what it asked for and what went wrong in it."""

    def __init__(self, browser: Any, served: Served, width: int = 1400) -> None:
        self.tab = browser.new_context(viewport={"width": width, "height": 900}, accept_downloads=True).new_page()
        self.asked: list[str] = []
        self.errors: list[str] = []
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.set_default_timeout(PATIENCE)
        self.tab.goto(served.address)
        self.tab.wait_for_selector("#maps .ca-empty")

    def drop(self, name: str, data: bytes) -> None:
        self.tab.click("#drop button:has(input)", trial=True)  # nothing covers it
        self.tab.evaluate(DROP, [base64.b64encode(data).decode(), name])

    def wait_for_maps(self, count: int) -> None:
        self.tab.wait_for_function(f"document.querySelectorAll('#maps .ca-map').length === {count}")

    def download(self, kind: str) -> tuple[str, bytes]:
        with self.tab.expect_download() as found:
            self.tab.click(f"#download-{kind}")
        return found.value.suggested_filename, Path(found.value.path()).read_bytes()

    def choose(self, field: str, option: str) -> None:
        self.tab.click(f"{field} input")
        self.tab.fill(f"{field} input", option)
        self.tab.keyboard.press("Enter")
