from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from captum_astro.kinds import FLAG, Kind, choice, number, whole

SHARE = number(least=0, below=1)


@pytest.mark.parametrize(
    ("kind", "valid", "invalid"),
    [
        (whole(), [-3, np.int64(3)], [1.5, True, "3", None, float("nan")]),
        (whole(least=1), [1, 10**30], [0, -1]),
        (whole(1, 9), [1, 9], [0, 10]),
        (number(), [-1.5, 0, np.float32(2)], [float("nan"), float("inf"), True, "1", None]),
        (number(above=0), [1e-9], [0, -1]),
        (SHARE, [0, 0.5], [-0.1, 1]),
        (choice("a", "b"), ["a"], ["c", None]),
        (FLAG, [True, False, np.True_], ["no", 1, None]),
    ],
    ids=lambda value: value.accepted if isinstance(value, Kind) else "",
)
def test_values(kind: Kind, valid: list[Any], invalid: list[Any]) -> None:
    for value in valid:
        kind.check("x", value)
    for value in invalid:
        with pytest.raises(ValueError, match=re.escape(f"x must be {kind.accepted}, not {value!r}.")):
            kind.check("x", value)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [(whole(1), "1", 1), (number(above=0), " 1e-3", 1e-3), (choice(1, None), "None", None), (FLAG, "False", False)],
)
def test_text(kind: Kind, text: str, value: Any) -> None:
    assert kind.read(text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [(whole(1), "0"), (whole(), "1.0"), (number(), "nan"), (number(), "1e999"), (SHARE, "1"), (choice("a"), "A")],
)
def test_invalid_text(kind: Kind, text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the caller says what is accepted
        kind.read(text)


def test_how_limits_are_said() -> None:
    assert [kind.accepted for kind in (whole(2), whole(1, 9), number(above=0), SHARE, choice("a", "b", "c"))] == [
        "a whole number of at least 2", "a whole number from 1 to 9", "a number above 0",
        "a number of at least 0 and below 1", "a, b or c",
    ]  # fmt: skip
