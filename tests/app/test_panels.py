from __future__ import annotations

import json

import numpy as np
import pytest

import captum_astro
from captum_astro.app.networks import Networks
from captum_astro.app.panels import panels, shown, token_panel
from captum_astro.app.wish import ModelWish
from captum_astro.models.bundled import PIT, PLAIN
from tests.app.making import IMAGE, decoded, made


def test_what_is_drawn(networks: Networks) -> None:
    found = panels(made(networks, methods=("VTranM", "LRP"), against=8))
    assert json.loads(json.dumps(found))["grid"] == [16, 16]
    assert (found["width"], found["height"], found["box"]) == (80, 64, [8, 0, 72, 64])
    assert decoded(found["image"]).size == (80, 64)
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
    found = made(networks, model=ModelWish(name))
    cells = 16 if name == PLAIN else 8
    panel = token_panel(found, 9, 4)
    assert panel["outline"] == [9 * cells // 16, 4 * cells // 16, cells, cells]
    whole = captum_astro.VTranM(found.model).contribution_map(found.given.x, target=3)[0]
    token = 1 + panel["outline"][0] * cells + panel["outline"][1]
    row = whole[token, 1:].reshape(16, 16)
    layer, _ = captum_astro.viz.layer(row)
    assert np.array_equal(np.asarray(decoded(panel["layer"])), np.asarray(layer))
    with pytest.raises(ValueError, match="no patch"):
        token_panel(found, 16, 0)
