from __future__ import annotations

import base64
import io
import json
import runpy
import shlex
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import captum_astro
from captum_astro.app.charts import curve_chart, families, verdict
from captum_astro.app.explained import Explained, classes_of, explained
from captum_astro.app.files import download
from captum_astro.app.handlers import Choice, Handlers
from captum_astro.app.networks import Networks
from captum_astro.app.panels import panels, shown, token_panel
from captum_astro.app.script import command_of, python_of
from captum_astro.app.settings import Settings
from captum_astro.app.visit import Visit
from captum_astro.app.wish import ModelWish, Wish, model_wish
from captum_astro.cli import main
from captum_astro.models.bundled import PIT, PLAIN

IMAGE = Image.effect_noise((80, 64), 90).convert("RGB")
WISH = Wish(ModelWish(PLAIN), "noise.png", ("VTranM",), 3)
VITA = {"k": 4, "tau": 2, "phi": -0.5, "alpha": 1.5, "beta": 0.05}


@pytest.fixture(scope="module")
def networks() -> Networks:
    return Networks(Settings())


def _explained(networks: Networks, **changes: Any) -> Explained:
    wish = replace(WISH, **changes)
    return explained(wish, networks.get(wish.model), IMAGE)


def _decoded(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))


def test_maps_are_those_of_the_one_call(networks: Networks) -> None:
    found = _explained(networks, methods=("VTranM", "LRP"), against=8)
    model = timm.create_model(PLAIN, pretrained=True).eval()
    expected = captum_astro.explain(model, IMAGE, ["VTranM", "LRP"], [3, 8])
    for one, other in zip(found.results, expected, strict=True):
        assert torch.equal(one.attributions, other.attributions)
        assert (one.options, one.target) == (other.options, other.target)
    assert [target.index for target in found.targets] == [3, 8]
    assert found.grid == (16, 16)


def test_what_is_drawn(networks: Networks) -> None:
    found = panels(_explained(networks, methods=("VTranM", "LRP"), against=8))
    assert json.loads(json.dumps(found))["grid"] == [16, 16]
    assert (found["width"], found["height"], found["box"]) == (80, 64, [8, 0, 72, 64])
    assert _decoded(found["image"]).size == (80, 64)
    assert [group["title"] for group in found["groups"]] == ["VTranM", "LRP"]
    for group in found["groups"]:
        a, b, difference = group["panels"]
        assert a["title"].startswith(f"{group['title']}: 3 ")
        assert b["title"].startswith(f"{group['title']}: 8 ")
        assert difference["title"] == "3 minus 8, each divided by its limit"
        low, zero, high = difference["bar"]["ticks"]
        assert float(low) == -float(high) < float(zero) == 0
    assert found["groups"][0]["panels"][0]["bar"]["colours"][0] == "#440154"
    alone = shown(IMAGE)
    assert (alone["groups"], alone["box"]) == ([], [0, 0, 80, 64])


@pytest.mark.parametrize("name", [PLAIN, PIT])
def test_a_click_shows_the_row_of_that_token(networks: Networks, name: str) -> None:
    found = _explained(networks, model=ModelWish(name))
    cells = 16 if name == PLAIN else 8
    panel = token_panel(found, 9, 4)
    assert panel["outline"] == [9 * cells // 16, 4 * cells // 16, cells, cells]
    whole = captum_astro.VTranM(found.model).contribution_map(found.given.x, target=3)[0]
    token = 1 + panel["outline"][0] * cells + panel["outline"][1]
    row = whole[token, 1:].reshape(16, 16)
    layer, _ = captum_astro.viz.layer(row)
    assert np.array_equal(np.asarray(_decoded(panel["layer"])), np.asarray(layer))
    with pytest.raises(ValueError, match="no patch"):
        token_panel(found, 16, 0)


def test_the_curves_are_drawn(networks: Networks) -> None:
    found = _explained(networks, methods=("VTranM", "RawAttention"))
    assert len(found.curves) == 2
    chart = curve_chart(found)
    picture = _decoded(chart.split('src="')[1].split('"')[0])
    assert np.asarray(picture.convert("L")).std() > 10


@pytest.mark.parametrize("name", ['../it\'s a "cat"; rm -rf ~.png', "-cat.png", "katze \U0001f408.png"])
@pytest.mark.parametrize("changes", [{}, {"vita": VITA, "crop": "squash", "against": 8}], ids=["plain", "vita"])
def test_copied_code_and_command_give_the_maps(
    networks: Networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, changes: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    IMAGE.save(name)
    found = _explained(networks, image=name, **changes)
    Path("copied.py").write_text(python_of(found.wish, found.targets))
    results = runpy.run_path("copied.py")["results"]
    assert len(results) == len(found.results)
    for one, other in zip(results, found.results, strict=True):
        assert torch.equal(one.attributions, other.attributions)
        assert one.target == other.target
    assert Path("maps.png").stat().st_size > 0

    words = shlex.split(command_of(found.wish, found.targets))
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    maps = sorted(Path("maps").glob("*.npy"))
    assert len(maps) == len(found.results)
    for file, result in zip(maps, found.results, strict=True):
        assert np.array_equal(np.load(file), result.attributions[0].sum(0).numpy())


def test_downloads(networks: Networks) -> None:
    found = _explained(networks, methods=("VTranM", "LRP"), image="a b.c.png")
    files = {kind: download(found, kind) for kind in ("picture", "arrays", "record")}
    assert [file["name"] for file in files.values()] == [f"a_b_c_explained.{end}" for end in ("png", "npz", "json")]
    data = {kind: base64.b64decode(file["data"]) for kind, file in files.items()}
    assert Image.open(io.BytesIO(data["picture"])).width > 600
    arrays = np.load(io.BytesIO(data["arrays"]))
    for result in found.results:
        array = arrays[f"{result.options['method']}_class3"]
        assert np.array_equal(array, result.attributions[0].sum(0).numpy())
    record = json.loads(data["record"])
    assert record == json.loads(json.dumps(found.results.record))
    assert record["maps"][0]["image"]["file"] == "a b.c.png"


def test_verdict_is_that_of_check_methods(networks: Networks) -> None:
    report = networks.report(ModelWish(PLAIN))
    assert networks.report(ModelWish(PLAIN)) is report
    text = unescape(verdict(report))
    for one in report.outcomes:
        assert f"{one.method}</td><td>{one.status}</td>" in text
    assert {name for names in families().values() for name in names} == {one.method for one in report.outcomes}


def test_models_are_loaded_once_and_few_are_kept(networks: Networks) -> None:
    first = networks.get(ModelWish(PLAIN))
    assert networks.get(ModelWish(PLAIN)) is first
    for name in (PIT, "astromorphic_scenes_tiny_patch8_64"):
        networks.get(ModelWish(name))
    assert networks.get(ModelWish(PLAIN)) is not first


def test_weights_of_the_folder(tmp_path: Path) -> None:
    model = timm.create_model("test_vit", num_classes=3)
    torch.save(model.state_dict(), tmp_path / "mine.pt")
    networks = Networks(Settings(tmp_path))
    found = networks.get(ModelWish("test_vit", "mine.pt")).model
    assert torch.equal(found.head.weight, model.head.weight)
    for name in ("../mine.pt", "/etc/passwd"):
        with pytest.raises(ValueError, match="is no file of the app's folder"):
            networks.get(ModelWish("test_vit", name))


@pytest.mark.parametrize(
    ("fields", "settings", "message"),
    [
        (("", "", ""), Settings(), "No model is named"),
        (
            ("test_vit", "", ""),
            Settings(models=(PLAIN, PIT)),
            f"test_vit is not offered here. Choose one of {PLAIN}, {PIT}",
        ),
        (
            ("open_clip:ViT-B-32:x", "", "a cat\n\n a cat "),
            Settings(),
            "from 2 to 50, each on a line .* there is 1 text",
        ),
        (("open_clip:ViT-B-32:x", "", "a\nb\nc"), Settings(prompts=2), "from 2 to 2, .* there are 3 texts"),
        (("open_clip:ViT-B-32:x", "", f"a\n{'b' * 501}"), Settings(), "500 characters at most"),
    ],
)
def test_models_that_are_refused(fields: tuple[str, str, str], settings: Settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model_wish(*fields, settings)


def test_wishes_that_are_refused(networks: Networks) -> None:
    with pytest.raises(ValueError, match="No method is chosen"):
        _explained(networks, methods=())
    with pytest.raises(ValueError, match="The class 'cat': no class has that name"):
        _explained(networks, target="cat")
    for same in (3, "3"):
        with pytest.raises(ValueError, match="Class A and class B are both 3: choose another one, or no class B"):
            _explained(networks, against=same)
    with pytest.raises(ValueError, match="adds its own astrocytes"):
        _explained(networks, methods=("ViTAGradCAM",), vita=VITA)


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
