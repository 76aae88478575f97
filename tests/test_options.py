from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, Literal

import pytest
from torch import nn

from captum_astro import ViTA
from captum_astro.kinds import kind_of
from captum_astro.options import listed_values, named_texts, named_values, options_of


def explain(
    inputs: Any,
    output: Literal["probability", "logit"] = "probability",
    components: Collection[Literal["length", "direction"]] = (),
    layer: nn.Module | str | None = None,
    block: int | None = None,
    gain: float = 1.0,
    relu: bool = False,
    other: Any = None,
    **more: Any,
) -> None:
    """Something with options of every kind."""


KNOWN = options_of(explain, without=["inputs"])


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("output=logit", "logit"),
        ("components=length+direction", ("length", "direction")),
        ("components=length", ("length",)),
        ("components=", ()),
        ("layer=blocks.0", "blocks.0"),
        ("layer=none", None),
        ("layer=3", "3"),
        ("block=3", 3),
        ("block=None", None),
        ("gain=2", 2.0),
        (" gain = 1e-3 ", 1e-3),
        ("relu=TRUE", True),
        ("other=a=b", "a=b"),
    ],
)
def test_values(part: str, value: Any) -> None:
    [found] = named_values("X", [part], KNOWN).values()
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["size=3"], "X has no option 'size=3'. Options: output, components, layer, block, gain, relu, other."),
        (["gain"], "X has no option 'gain'. Expected NAME=VALUE. Options: output"),
        (["=3"], "X has no option '=3'. Expected NAME=VALUE. Options: output"),
        (["inputs=3"], "X has no option 'inputs=3'"),
        (["more=3"], "X has no option 'more=3'"),
        (["gain=1", "gain=2"], "X: gain is given twice."),
        (["gain=much"], "X: gain must be a number, not 'much'."),
        (["gain=none"], "X: gain must be a number, not 'none'."),
        (["gain=nan"], "X: gain must be a number, not 'nan'."),
        (["gain=-inf"], "X: gain must be a number, not '-inf'."),
        (["gain="], "X: gain must be a number, not ''."),
        (["components=length++direction"], "X: components must be any of length, direction joined with +"),
        (["block=1.5"], "X: block must be a whole number, or none, not '1.5'."),
        (["relu=1"], "X: relu must be true or false, not '1'."),
        (["output=odds"], "X: output must be probability or logit, not 'odds'."),
        (
            ["components=length+width"],
            "X: components must be any of length, direction joined with +, not 'length+width'",
        ),
    ],
)
def test_errors_name_the_option_and_its_accepted_values(parts: list[str], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        named_values("X", parts, KNOWN)


def test_named_texts_accept_any_name() -> None:
    assert named_texts("--set", ["a = 1", "b=x=y"]) == {"a": "1", "b": "x=y"}
    with pytest.raises(ValueError, match=r"^--set has no option 'a'\. Expected NAME=VALUE\.$"):
        named_texts("--set", ["a"])


def test_comma_separated_values() -> None:
    assert listed_values("--phi", "-0.5, 0,", kind_of(float)) == [-0.5, 0.0]
    for empty in ("", " , "):
        with pytest.raises(ValueError, match=r"^--phi names nothing: '.*'\. Give at least one value"):
            listed_values("--phi", empty, kind_of(float))
    with pytest.raises(ValueError, match=r"^--k must be a whole number, not '4;6'\.$"):
        listed_values("--k", "3,4;6", kind_of(int))


def test_the_options_of_astrocytes() -> None:
    parts = ["k=4", "beta=0.1", "layer=blocks.0.mlp.fc1", "rescale=none", "feedback=true"]
    assert named_values("--vita", parts, options_of(ViTA.__init__, without=["model"])) == {
        "k": 4, "beta": 0.1, "layer": "blocks.0.mlp.fc1", "rescale": "none", "feedback": True,
    }  # fmt: skip


def test_a_function_whose_annotations_cannot_be_read_takes_text() -> None:
    def odd(value: Missing = 1) -> None:  # noqa: F821
        ...

    assert named_values("X", ["value=3"], options_of(odd)) == {"value": "3"}
