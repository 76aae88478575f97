"""The page in a browser: what a visitor does, and what the page asks of whom. Needs Chromium and Playwright."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

import captum_astro
from captum_astro.app.settings import Settings
from tests.app.serving import Served, png, serve
from tests.app.visitor import CHROMIUM, Page, chromium

pytest.importorskip("gradio", reason="the extra 'app' is not installed")
pytest.importorskip("playwright.sync_api", reason="the extra 'browser' is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium")
MODEL = "scenes_vit_tiny_patch4_64"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("pictures")) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def image() -> Image.Image:
    return Image.effect_noise((96, 64), 90).convert("RGB")


def _bytes(image: Image.Image) -> bytes:
    held = io.BytesIO()
    image.save(held, "PNG")
    return held.getvalue()


def test_a_visit(browser: Any, served: Served, image: Image.Image) -> None:
    page = Page(browser, served)
    tab = page.tab
    page.drop("noise.png", _bytes(image))
    tab.wait_for_function("document.querySelector('#image input').value === 'noise.png'")
    tab.wait_for_selector("text=Outlined: what the model sees (67%)")

    # a click on a patch: row 4 and column 8 of what the model sees, which is the middle of the image
    frame = tab.locator("#maps .ca-frame").nth(1).bounding_box()
    tab.mouse.click(frame["x"] + frame["width"] * (16 + 8.5 * 4) / 96, frame["y"] + frame["height"] * 4.5 / 16)
    tab.wait_for_selector("#maps .ca-token")
    assert "What final token (4, 8) takes from each patch" in tab.inner_text("#maps")

    # class A against class B
    page.choose("#class-b", "8")
    tab.click("#explain")
    page.wait_for_maps(3)
    assert "minus 8, each divided by its limit" in tab.inner_text("#maps")

    # opacity and zoom, of all maps at once
    tab.locator("#maps input[type=range]").fill("0.3")
    assert tab.eval_on_selector_all("#maps .ca-map", "all => all.map(one => one.style.opacity)") == ["0.3"] * 3
    tab.click("#maps button[title='Zoom in']")
    moved = tab.eval_on_selector_all("#maps .ca-inside", "all => all.map(one => one.style.transform)")
    assert moved == ["translate(-25%, -25%) scale(1.5)"] * 3

    tab.click("#curves-button")
    tab.wait_for_selector("#curves img")

    # what is downloaded is what the one call gives
    name, data = page.download("arrays")
    arrays = np.load(io.BytesIO(data))
    assert name == "noise_explained.npz"
    top = int(next(iter(arrays)).removeprefix("VTranM_class"))
    for result in captum_astro.explain(MODEL, image, ["VTranM"], [top, 8]):
        expected = result.attributions[0].sum(0).numpy()
        np.testing.assert_allclose(arrays[f"VTranM_class{result.target.index}"], expected, rtol=1e-4, atol=1e-12)
    assert [one["target"]["index"] for one in json.loads(page.download("record")[1])["maps"]] == [top, 8]
    assert Image.open(io.BytesIO(page.download("picture")[1])).width > 600

    tab.click("text=Copy as Python, or as a command")
    assert f"captum-astro explain noise.png --model {MODEL} --method VTranM" in tab.inner_text("#command")
    assert "explain(model, 'noise.png'" in tab.inner_text("#python")

    elsewhere = [url for url in page.asked if not url.startswith((served.address, "data:", "blob:"))]
    assert not elsewhere
    assert not page.errors
    tab.click("text=What works with this model")
    tab.wait_for_selector("#verdict td:has-text('VTranM') + td:has-text('exact')")


def test_a_scene_of_its_own(browser: Any, served: Served) -> None:
    page = Page(browser, served)
    page.tab.click("#scene")
    page.wait_for_maps(1)


def test_what_is_refused_is_said_on_the_page(browser: Any, served: Served) -> None:
    page = Page(browser, served)
    tab = page.tab
    for name, data, message in (
        ("large.png", bytes(Settings().upload + 1), 'exceed the maximum allowed size of 20.0 Mb: "large.png"'),
        ("none.png", b"not an image", "none.png: not an image of a known format"),
        ("a\u202egnp.png", png(), "is no name for an image"),
    ):
        page.drop(name, data)
        tab.wait_for_selector(f"text={message}")
    assert not tab.query_selector("#maps .ca-map")
    assert "Error" not in tab.inner_text("#drop")
    page.drop("taken.png", png((64, 64)))
    page.wait_for_maps(1)
    page.choose("#model", "no_such_vit")
    tab.wait_for_selector("text=timm has no model 'no_such_vit'")
    assert "Error" not in tab.inner_text("#class-a")  # nothing covers the fields


def test_two_visitors_and_a_telephone(browser: Any, served: Served) -> None:
    one, other = Page(browser, served), Page(browser, served, width=390)
    one.drop("mine.png", png((64, 64), "red"))
    other.drop("<b>yours.png", png((64, 64), "blue"))
    for page, own, foreign in ((one, "mine", "yours"), (other, "yours", "mine")):
        page.wait_for_maps(1)
        assert own in page.tab.input_value("#image input")
        assert foreign not in page.tab.content()
    assert other.tab.evaluate("document.documentElement.scrollWidth") <= 390
    row = "document.querySelector('#maps .ca-row').getBoundingClientRect()"
    other.tab.wait_for_function(f"0 <= {row}.top && {row}.bottom <= innerHeight + 1")  # scrolled into view
