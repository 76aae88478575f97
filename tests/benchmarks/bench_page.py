"""From the first click on the page to the first map, in a browser. Needs Chromium.

Run ``python -m tests.benchmarks.bench_page``.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from tests.app.serving import serve
from tests.app.visitor import Page, chromium

ROUNDS = 7


def main() -> None:
    with TemporaryDirectory() as pictures, serve(Path(pictures)) as served, chromium() as browser:
        seconds = []
        for _ in range(ROUNDS):
            page, start = Page(browser, served), time.perf_counter()
            page.tab.click("#scene")
            page.wait_for_maps(1)
            seconds.append(time.perf_counter() - start)
    others = seconds[1:]
    print(f"The first visitor waits {seconds[0]:.2f} s")
    print(f"{len(others)} others wait {median(others):.2f} s, {max(others):.2f} s at most")


if __name__ == "__main__":
    main()
