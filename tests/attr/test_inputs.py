"""Captum's interface and tools, tested over every exported method."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from captum_astro import UnsupportedModelError, ViTA, VTranM, explainers
from captum_astro.attr._base import TokenAttribution
from captum_astro.attr._inputs import block_numbers, channels_of, check_inputs
from captum_astro.layouts.base import layout_for
from captum_astro.models.astromorphic_text import AstromorphicTextClassifier
from tests.families import build, images

METHODS = [explainer.method for explainer in explainers()]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)


@every_method
def test_tuple_input_returns_a_tuple(method: Any) -> None:
    model, x = build("cls"), images("cls")
    (given,) = method(model).attribute((x,), target=1)
    torch.testing.assert_close(given, method(model).attribute(x, target=1))
    with pytest.raises(AssertionError, match="one tensor of images"):
        method(model).attribute((x, x), target=1)
    with pytest.raises(AssertionError, match="one tensor of images"):
        method(model).attribute([x], target=1)


@every_method
def test_bad_input(method: Any) -> None:
    model, x = build("cls"), images("cls")
    explain = method(model).attribute
    for wrong, message in [
        (x[:0], "empty"),
        (x[:, :1], "takes 3 channels"),
        (x.masked_fill(x > 2, torch.nan), "NaN"),
        (x[0], "floating point"),
        (x.long(), "floating point"),
    ]:
        with pytest.raises(ValueError, match=message):
            explain(wrong, target=1)
    with pytest.raises(TypeError, match=r"must be a torch\.nn\.Module"):
        method(model.forward)
    with pytest.raises(UnsupportedModelError, match="ScriptModule"):
        method(torch.jit.trace(model, x))
    with pytest.raises(UnsupportedModelError, match="has no layout"):
        method(nn.Linear(3, 3)).attribute(x, target=1, attribute_to="grid")  # some need one only for a grid
    model.set_grad_checkpointing(True)
    with pytest.raises(UnsupportedModelError, match=r"set_grad_checkpointing\(False\)"):
        explain(x, target=1)


class Shifted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = build("cls")

    def forward(self, image: torch.Tensor, shift: Any = 0.0) -> torch.Tensor:
        return self.inner(image + shift)


def test_channels_are_known_unless_a_wrapper_may_change_them() -> None:
    model = build("cls")
    layout = layout_for(model)
    for known in (model, nn.Sequential(nn.Identity(), model), ViTA(model)):
        assert channels_of(known, layout) == 3
    assert channels_of(Shifted(), layout) is None
    assert channels_of(nn.Linear(2, 2), None) is None


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (torch.rand(1, 3, 4, 4).numpy(), AssertionError, "one tensor of images, .*, not ndarray"),
        (torch.rand(3, 4, 4), ValueError, r"floating point \(B, C, H, W\)"),
        (torch.ones(1, 3, 4, 4, dtype=torch.uint8), ValueError, r"not torch\.uint8 \(1, 3, 4, 4\)"),
        (torch.rand(0, 3, 4, 4), ValueError, "The batch is empty"),
        (torch.rand(1, 4, 4, 4), ValueError, "VisionTransformer takes 3 channels; the images have 4"),
        (torch.full((1, 3, 4, 4), torch.inf), ValueError, "NaN or infinite"),
    ],
)
def test_bad_images(inputs: Any, error: type[Exception], message: str) -> None:
    model = build("cls")
    with pytest.raises(error, match=message):
        check_inputs(inputs, model, layout_for(model), "input")


def test_bad_texts() -> None:
    model = AstromorphicTextClassifier(num_classes=2, vocabulary=9, dim=8, num_heads=2, depth=1, length=6).eval()
    layout = layout_for(model)
    check_inputs(torch.ones(2, 5, dtype=torch.long), model, layout, "tokens")
    for wrong in (
        torch.rand(2, 5),
        torch.ones(5, dtype=torch.long),
        torch.ones(2, 0, dtype=torch.long),
        torch.ones(2, 5) > 0,
    ):
        with pytest.raises(ValueError, match=r"Token ids must be integers \(B, n\)"):
            check_inputs(wrong, model, layout, "tokens")
    with pytest.raises(ValueError, match="Text has no grid"):
        check_inputs(torch.ones(2, 5, dtype=torch.long), model, layout, "grid")
    with pytest.raises(AssertionError, match=r"one tensor of token ids, .*, not list"):
        check_inputs([[1, 2]], model, layout, "tokens")


def test_train_mode_warns_only_if_random() -> None:
    model, x = build("cls").train(), images("cls")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_inputs(x, model, layout_for(model), "input")  # its dropout rates are 0
    model.pos_drop.p = 0.1
    with pytest.warns(UserWarning, match=r"train mode.*Call model\.eval\(\) first"):
        check_inputs(x, model, layout_for(model), "input")


def test_block_numbers() -> None:
    assert block_numbers(None, 4) is None
    assert block_numbers([0, -1, 2], 4) == {0, 2, 3}
    assert block_numbers(slice(1, None), 4) == {1, 2, 3}
    assert block_numbers([], 4) == set()
    assert block_numbers(np.arange(2), 4) == {0, 1}
    for wrong in (4, -5):
        with pytest.raises(ValueError, match=f"layers contains {wrong}, but the blocks are numbered 0 to 3"):
            block_numbers([0, wrong], 4)
    with pytest.raises(ValueError, match=r"pass \[2\]"):
        block_numbers(2, 4)
    with pytest.raises(ValueError, match=r"contains '1'"):
        block_numbers("1", 4)


@every_method
def test_unknown_arguments_are_refused(method: Any) -> None:
    model, x = build("cls"), images("cls")
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'nonsense'"):
        method(model).attribute(x, target=1, nonsense=2)
    if not issubclass(method, TokenAttribution):
        with pytest.raises(TypeError, match=r"unexpected keyword argument 'layers'"):
            method(model).attribute(x, target=1, layers=[1])


def test_the_whole_map_has_one_form() -> None:
    with pytest.raises(TypeError, match=r"contribution_map\(\) got an unexpected keyword argument 'attribute_to'"):
        VTranM(build("cls")).contribution_map(images("cls"), target=1, attribute_to="grid")
