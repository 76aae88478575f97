from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from captum_astro.app.explained import classes_of
from captum_astro.app.handlers import Choice, Handlers, families
from captum_astro.app.networks import Networks
from captum_astro.app.settings import Settings
from captum_astro.app.visit import Visit
from captum_astro.app.wiring import Fields
from captum_astro.app.wish import ModelWish, Wish
from captum_astro.explaining.classes import Class
from captum_astro.models.bundled import PIT, PLAIN
from tests.app.making import VITA
from tests.app.serving import PNG


def test_the_fields_of_the_page_make_a_wish(tmp_path: Path) -> None:
    handlers, visit = Handlers(Settings(), tmp_path), Visit()
    visit, images = handlers.scene(visit)
    assert images == Choice(["scene_0.png"], "scene_0.png")
    methods = [["VTranM"] if "VTranM" in names else names[:1] for names in families().values()]
    page = Fields(images.value, "none", PLAIN, "", "", methods, " 3 ", 8, True, list(VITA.values()))
    fields = page.all
    wish = handlers.wish(*fields)
    chosen = tuple(name for names in methods for name in names)
    assert wish == Wish(ModelWish(PLAIN), "scene_0.png", chosen, "3", 8, "none", VITA)
    assert handlers.wish(*replace(page, astrocytes=False).all).vita is None
    drawn, a, b = handlers.look(visit, *fields)
    classes = classes_of(wish, handlers.networks.get(wish.model), visit.image("scene_0.png", Settings()))
    best = max(classes, key=lambda one: one.probability)
    assert drawn["groups"] == []
    assert a.choices[0] == (f"{best.short} ({best.probability:.1%})", best.index)
    assert (a.value, b.value, len(b.choices)) == (best.index, None, 10)


def test_uploads_are_kept_all_or_none_and_leave_no_file(tmp_path: Path) -> None:
    handlers, visit = Handlers(Settings(), tmp_path), Visit()

    def uploaded(**files: bytes) -> list[str]:
        for name, data in files.items():
            (tmp_path / f"{name}.png").write_bytes(data)
        return [str(tmp_path / f"{name}.png") for name in files]

    found, images = handlers.receive(visit, uploaded(a=PNG, b=PNG))
    assert found is visit
    assert images == Choice(["b.png", "a.png"], "b.png")
    assert handlers.receive(visit, None) == (visit, images)
    with pytest.raises(ValueError, match=r"c\.png: not an image"):
        handlers.receive(visit, uploaded(c=b"no image", d=PNG))
    assert visit.offered(handlers.settings) == images.choices
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="this file was not uploaded"):
        handlers.receive(visit, ["/etc/passwd"])


def test_maps_and_what_is_asked_of_them(networks: Networks, tmp_path: Path) -> None:
    handlers = Handlers(Settings(), tmp_path)
    handlers.networks = networks
    visit, images = handlers.scene(Visit())
    with pytest.raises(ValueError, match="There is no map yet"):
        handlers.curves(visit)
    chosen = [["VTranM"] if "VTranM" in names else [] for names in families().values()]
    fields = Fields(images.value, "center", PLAIN, "", "", chosen, 3, None, False, list(VITA.values())).all
    found, drawn, python, command, curves = handlers.explain(visit, *fields)
    assert found is visit
    assert [group["title"] for group in drawn["groups"]] == ["VTranM"]
    assert python.startswith("from captum_astro import explain")
    assert command == f"captum-astro explain scene_0.png --model {PLAIN} --method VTranM --target 3"
    assert curves == ""
    clicked = handlers.token(visit, 2, 5)
    assert clicked.pop("token")["title"].startswith("What final token (2, 5) takes from each patch: 3")
    assert clicked == {name: value for name, value in drawn.items() if name != "token"}
    assert handlers.curves(visit).startswith('<div class="ca-curves">')
    assert handlers.download("record")(visit)["name"] == "scene_0_explained.json"


def test_of_very_many_classes_the_top_ones_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = Handlers(Settings(), tmp_path)
    for count, listed in ((2000, 2000), (2001, 5)):
        found = [Class(index, f"name {index}", index / count) for index in range(count)]
        monkeypatch.setattr("captum_astro.app.handlers.classes_of", lambda *_, found=found: found)
        visit, images = handlers.scene(Visit())
        fields = Fields(images.value, "center", PLAIN, "", "", [[]] * 3, None, None, False, list(VITA.values())).all
        _, a, b = handlers.look(visit, *fields)
        assert a.choices == b.choices
        assert len(a.choices) == listed
        assert [index for _, index in a.choices[:6]] == [*range(count - 1, count - 6, -1), 0][:listed]
        assert (a.value, b.value) == (count - 1, None)


def test_the_first_model_is_warmed(tmp_path: Path) -> None:
    handlers = Handlers(Settings(models=(PIT,)), tmp_path)
    handlers.warm()
    assert handlers.networks._loaded.keys() == {(PIT, None)}
    other = Handlers(Settings(models=("vit_base_patch16_224", PIT)), tmp_path)
    other.warm()
    assert not other.networks._loaded
