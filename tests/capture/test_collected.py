"""What a pass was: its images, its grids, and which tokens its output reads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm.layers import PatchDropout
from torch import nn

from captum_astro import UnsupportedModelError
from captum_astro.capture.capture import capture
from captum_astro.capture.target import Target
from captum_astro.capture.wanted import Wanted
from tests.capture.making import call_of
from tests.families import build, images


def _passed(model: nn.Module, x: torch.Tensor, **wanted: Any) -> Any:
    return capture(call_of(model, x), Wanted(**wanted))


def test_geometry_of_a_hierarchical_model() -> None:
    model, x = build("swin"), images("swin")
    passed = _passed(model, x)
    assert passed.image_size == tuple(x.shape[-2:])
    tokens = [record.following.shape[1] for record in passed.stages]
    assert tokens == [record.grid[0] * record.grid[1] for record in passed.stages]
    assert passed.grid[0] * passed.grid[1] == passed.stages[0].stream.shape[1]
    assert tokens[-1] < tokens[0]


@pytest.mark.parametrize(("name", "read"), [("cls", {0}), ("average", None)])
def test_the_readout_is_what_the_output_depends_on(name: str, read: set[int] | None) -> None:
    model, x = build(name), images(name)
    passed = _passed(model, x)
    torch.testing.assert_close(passed.readout.sum(1), torch.ones(len(x), dtype=torch.float64))
    found = {int(i) for i in passed.readout[0].nonzero()}
    patches = passed.grid[0] * passed.grid[1]
    every = set(range(passed.readout.shape[1] - patches, passed.readout.shape[1]))
    assert found == (every if read is None else read)


def test_dropped_patches_are_seen() -> None:
    model, x = build("cls"), images("cls")
    model.patch_drop = PatchDropout(0.5)
    model.patch_drop.train()
    with pytest.raises(UnsupportedModelError, match=r"tokens were seen\. Is patch dropout on\? Call model\.eval"):
        _passed(model, x)


def test_a_wrapper_that_calls_the_model_twice_or_changes_the_batch_is_refused() -> None:
    class Both(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(x) + self.model(x.flip(-1))

    class Crops(Both):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(torch.cat([x, x.flip(-1)])).unflatten(0, (2, -1)).mean(0)

    x = images("cls")
    with pytest.raises(UnsupportedModelError, match="was called 2 times in one pass"):
        _passed(Both(build("cls")), x)
    with pytest.raises(UnsupportedModelError, match="received 6 images for 3 outputs"):
        _passed(Crops(build("cls")), x)


def test_whether_the_output_has_classes() -> None:
    model, x = build("cls"), images("cls")
    assert _passed(model, x).features is None
    model.num_classes = 0
    assert _passed(model, x).features == "has no classifier (num_classes=0)"
    around = nn.Sequential(model, nn.Linear(model.head.out_features, 3, dtype=torch.float64))
    assert capture(call_of(around, x, 2), Wanted()).features is None  # what comes after it gives classes


def test_a_target_for_each_image() -> None:
    model, x = build("cls"), images("cls")
    together = capture(call_of(model, x, [0, 1, 2]), Wanted())
    for number in range(3):
        alone = capture(call_of(model, x[number, None], number), Wanted())
        for one, other in zip(together.stages, alone.stages, strict=True):
            for a, b in zip(one.attentions, other.attentions, strict=True):
                torch.testing.assert_close(a.gradient[number, None], b.gradient)
    assert Target([0, 1, 2]).scores(together.output).tolist() == [together.output[i, i].item() for i in range(3)]
