from __future__ import annotations

from pathlib import Path

import pytest

from captum_astro.app.intake import Upload, opened
from captum_astro.app.settings import Settings
from captum_astro.app.visit import Visit, scene
from tests.app.serving import PNG, png


def test_a_visit_keeps_its_own_images(tmp_path: Path) -> None:
    (tmp_path / "z.png").write_bytes(PNG)
    settings, visit, other = Settings(tmp_path, images=2), Visit(), Visit()
    visit.add([Upload("a.png", PNG), Upload("b.png", PNG)], settings)
    assert visit.offered(settings) == ["b.png", "a.png", "z.png"]
    assert other.offered(settings) == ["z.png"]
    visit.add([Upload("a.png", png((8, 8)))], settings)
    assert visit.image("a.png", settings).size == (8, 8)
    with pytest.raises(ValueError, match="3 images, of which 2 are kept"):
        visit.add([Upload("c.png", PNG)], settings)
    with pytest.raises(ValueError, match="is no file of the app's folder"):
        other.image("a.png", settings)
    with pytest.raises(ValueError, match="no image yet: drop one"):
        visit.image(None, settings)
    with pytest.raises(ValueError, match="no map yet"):
        visit.shown()


def test_scenes_are_images() -> None:
    first, second = scene(0), scene(1)
    assert (first.name, second.name) == ("scene_0.png", "scene_1.png")
    assert opened(first, Settings()).size == (64, 64)
    assert first.data != second.data
