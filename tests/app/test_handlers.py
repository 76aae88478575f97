from __future__ import annotations

from pathlib import Path

import pytest

from captum_astro.app.explained import classes_of
from captum_astro.app.handlers import Choice, Handlers, families
from captum_astro.app.settings import Settings
from captum_astro.app.visit import Visit
from captum_astro.app.wish import ModelWish, Wish
from captum_astro.models.bundled import PLAIN
from tests.app.making import VITA


def test_the_fields_of_the_page_make_a_wish(tmp_path: Path) -> None:
    handlers, visit = Handlers(Settings(), tmp_path), Visit()
    visit, images = handlers.scene(visit)
    assert images == Choice(["scene_0.png"], "scene_0.png")
    methods = [["VTranM"] if "VTranM" in names else names[:1] for names in families().values()]
    fields = (images.value, "none", PLAIN, "", "", *methods, " 3 ", 8, True, *VITA.values())
    wish = handlers.wish(*fields)
    chosen = tuple(name for names in methods for name in names)
    assert wish == Wish(ModelWish(PLAIN), "scene_0.png", chosen, "3", 8, "none", VITA)
    assert handlers.wish(*fields[:-6], False, *VITA.values()).vita is None
    drawn, a, b = handlers.look(visit, *fields)
    classes = classes_of(wish, handlers.networks.get(wish.model), visit.image("scene_0.png", Settings()))
    best = max(classes, key=lambda one: one.probability)
    assert drawn["groups"] == []
    assert a.choices[0] == (f"{best.short} ({best.probability:.1%})", best.index)
    assert (a.value, b.value, len(b.choices)) == (best.index, None, 10)
    with pytest.raises(ValueError, match="this file was not uploaded"):
        handlers.receive(visit, ["/etc/passwd"])
