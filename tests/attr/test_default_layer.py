"""The layer that is found by trying: the last one that returns a grid of places which the output depends on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_astro.attr._default_layer import searched_tap
from captum_astro.capture.call import Call
from captum_astro.capture.target import LargestOutput


class Net(nn.Module):
    """Convolutions of which the last one may be left out of the output."""

    def __init__(self, unread: bool = False, twice: bool = False) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 2, 2), nn.ReLU())
        self.norm = nn.BatchNorm2d(6)
        self.last = nn.Sequential(nn.Conv2d(6, 6, 1), nn.ReLU())
        self.head = nn.Linear(6, 4)
        self.unread, self.twice = unread, twice

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.first(x))
        found = self.last(self.last(x) if self.twice else x)
        return self.head((x if self.unread else found).mean((2, 3)))


def _found(model: nn.Module) -> str | None:
    torch.manual_seed(0)
    tap = searched_tap(Call(model.eval(), torch.randn(2, 3, 12, 12), LargestOutput(), (), None))
    return None if tap is None else next(name for name, module in model.named_modules() if module is tap.module)


@pytest.mark.parametrize(
    ("options", "name"), [({}, "last"), ({"unread": True}, "norm"), ({"twice": True}, "norm")], ids=str
)
def test_the_last_block_or_norm_that_is_read_once(options: dict[str, bool], name: str) -> None:
    torch.manual_seed(0)
    assert _found(Net(**options)) == name


def test_a_feature_that_timm_names_comes_first() -> None:
    torch.manual_seed(0)
    model = Net()
    model.feature_info = [{"num_chs": 6, "reduction": 2, "module": "first"}]
    assert _found(model) == "first"


def test_a_model_without_places_has_none() -> None:
    torch.manual_seed(0)
    assert _found(nn.Sequential(nn.Flatten(), nn.Linear(432, 5), nn.ReLU(), nn.Linear(5, 4))) is None
