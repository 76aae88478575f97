"""What the model receives, from a wrapper too, and whether each pixel is where it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from captum_astro import UnsupportedModelError
from captum_astro.capture.call import Call
from captum_astro.capture.entry import Entry, check_batch, check_called_once, check_unmoved
from captum_astro.capture.hooks import Hooks
from captum_astro.capture.target import Target
from captum_astro.layouts.base import layout_for
from tests.families import build, images


class Around(nn.Module):
    """A wrapper that changes the image first."""

    def __init__(self, model: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.model, self.change = model, change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(self.change(x))


def _seen(model: nn.Module, run: Callable[[], object]) -> Entry:
    entry = Entry(model, layout_for(model))
    assert entry.size is None
    with torch.no_grad(), Hooks() as hooks:
        entry.install(hooks)
        run()
    return entry


def test_the_first_images_that_arrive() -> None:
    model, x = build("cls"), images("cls")
    entry = _seen(model, lambda: (model(x), model(x + 1)))
    assert entry.inputs is not None
    assert torch.equal(entry.inputs, x)
    assert entry.size == x.shape[-2:]


def test_a_wrapper_that_calls_another_method_of_the_model() -> None:
    model, x = build("cls"), images("cls")
    entry = _seen(model, lambda: model.forward_head(model.forward_features(x)))
    assert entry.inputs is not None
    assert torch.equal(entry.inputs, x)


def test_what_is_no_image_is_passed_over() -> None:
    model = build("cls")
    entry = Entry(model, layout_for(model))
    entry.note(torch.zeros(3))
    entry.note(torch.zeros(2, 5, 8))
    assert entry.inputs is None


def test_calls_and_batches() -> None:
    model = nn.Identity()
    check_called_once(model, 1)
    with pytest.raises(UnsupportedModelError, match="Identity was called 3 times in one pass"):
        check_called_once(model, 3)
    check_batch(model, 2, 2)
    with pytest.raises(UnsupportedModelError, match="Identity received 4 images for 2 outputs: a wrapper changes"):
        check_batch(model, 4, 2)


STILL = {
    "normalised": lambda x: (x - 0.5) / 0.2,
    "another gamma": lambda x: (x - x.amin() + 0.1).sqrt(),
    "channels exchanged": lambda x: x.flip(1),
    "resized": lambda x: F.interpolate(x, (32, 32), mode="bilinear", antialias=True),
    "quantised": lambda x: (x * 20).round() / 20,
}
MOVED = {
    "mirrored": lambda x: x.flip(-1),
    "upside down": lambda x: x.flip(-2),
    "turned": lambda x: x.rot90(1, (-2, -1)),
    "shifted": lambda x: x.roll(12, -1),
    "cropped": lambda x: F.interpolate(x[..., 8:-8, 8:-8], x.shape[-2:], mode="bilinear"),
    "a margin": lambda x: F.interpolate(F.pad(x, (12, 12, 12, 12)), x.shape[-2:], mode="bilinear"),
}


def _check(change: Callable[[torch.Tensor], torch.Tensor], size: int = 32) -> None:
    model = build("cls")
    x = torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    check_unmoved(Call(Around(model, change), x, Target(1)), model)


@pytest.mark.parametrize("name", STILL)
def test_pixels_that_keep_their_place(name: str) -> None:
    _check(STILL[name], 64 if name == "resized" else 32)


@pytest.mark.parametrize("name", MOVED)
def test_pixels_that_move(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match=r"Around moves the image before .* receives it"):
        _check(MOVED[name])


def test_the_model_itself_and_a_wrapper_with_convolutions_are_not_probed() -> None:
    model, x = build("cls"), images("cls")

    def refuses(x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("was called")

    check_unmoved(Call(model, x, Target(1)), model)
    around = Around(model, refuses)
    around.stem = nn.Conv2d(3, 3, 3)
    check_unmoved(Call(around, x, Target(1)), model)
