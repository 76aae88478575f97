from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from captum_astro import LRP, TransformerAttribution
from captum_astro.attr._precision import least_dtype
from tests.families import build, images


@pytest.mark.parametrize(("precision", "expected"), [("float64", torch.float64), ("float32", torch.float32)])
def test_least_dtype(precision: Any, expected: torch.dtype) -> None:
    assert least_dtype(precision, nn.Linear(2, 2)) == expected


def test_a_precision_that_there_is_not() -> None:
    with pytest.raises(ValueError, match="precision must be 'float64' or 'float32', which is faster, not 'float16'"):
        least_dtype("float16", nn.Linear(2, 2))


@pytest.mark.parametrize("method", [LRP, TransformerAttribution])
def test_a_model_of_float32_is_explained_as_one_of_float64(method: Any) -> None:
    model, x = build("cls", torch.float32), images("cls", dtype=torch.float32)
    exact = method(build("cls").double()).attribute(x.double(), target=1).float()
    found = method(model).attribute(x, target=1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-5 * float(exact.abs().max()))
