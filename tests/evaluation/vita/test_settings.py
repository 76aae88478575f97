from __future__ import annotations

import itertools
from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from captum_astro import ViTA
from captum_astro.evaluation.vita.settings import Setting, at_layers, grid
from captum_astro.functional.astrocyte import Modulation
from tests.families import build


def test_every_combination_once() -> None:
    given: dict[str, Any] = {"layer": [None, "blocks.1.mlp.fc1"], "k": [4, 6], "tau": [2, 3], "phi": [0.0]}
    given |= {"alpha": [1.5, 2.0], "beta": [0.05, 0.5]}
    found = grid(**given)
    expected = [dict(zip(given, values, strict=True)) for values in itertools.product(*given.values())]
    assert [{key: setting.keywords[key] for key in given} for setting in found] == expected
    assert len(set(found)) == len(found) == 32


def test_the_published_values_are_in_the_grid() -> None:
    settings = grid()
    assert len(set(settings)) == 144
    assert Setting(Modulation()) in settings
    assert {s.modulation.k for s in settings} == {4, 6, 8}
    assert {s.modulation.beta for s in settings} == {0.05, 0.005}


def test_result_forms_are_common_to_all_methods() -> None:
    settings = grid(k=[4], tau=[2], rescale="moments", counter="resetting")
    assert {(s.modulation.rescale, s.modulation.counter) for s in settings} == {("moments", "resetting")}


@pytest.mark.parametrize("token", ["auto", "mean"])
def test_keywords_make_the_vita(token: Any) -> None:
    rule = Modulation(4, 2, 0.1, 1.25, 0.3, "moments", "resetting", True)
    vita = ViTA(build("cls"), **Setting(rule, "blocks.1.mlp.fc1", token).keywords)
    assert vita.modulation == rule
    assert vita.layer == "blocks.1.mlp.fc1"
    assert vita.token == ("cls" if token == "auto" else "mean")


def test_keywords_are_a_copy() -> None:
    setting = Setting(Modulation())
    setting.keywords["k"] = 99
    setting.keywords.pop("layer")
    assert setting.modulation.k == 6
    assert setting.keywords["layer"] is None
    with pytest.raises(FrozenInstanceError):
        setting.layer = "head"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"k": [4, -1]}, "k must be a whole number"),
        ({"tau": [0]}, "tau must be a whole number"),
        ({"alpha": [0.9]}, "alpha must be at least 1"),
        ({"beta": [2.0]}, "beta must be from 0 to 1"),
        ({"rescale": "l2"}, "rescale must be one of length"),
        ({"counter": "x"}, "counter must be one of saturating"),
    ],
)
def test_bad_values(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grid(**wrong)


def test_settings_at_layers_are_the_grid_of_the_layers() -> None:
    given: dict[str, Any] = {"k": [4], "tau": [2, 3], "phi": [0.0], "alpha": [1.5, 2.0], "beta": [0.1]}
    assert at_layers(grid(**given), ["a", "b", "a"]) == grid(layer=["a", "b"], **given)
    assert at_layers(grid(**given), []) == []


def test_no_settings() -> None:
    assert grid(layer=[]) == []
