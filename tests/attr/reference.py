"""What a method returns, next to what it is compared with: loops over what plain hooks recorded."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from tests import twins
from tests.families import images

TARGET = 3

taken = partial(twins.of_family, target=TARGET)


def tokens(method: Any, name: str, **options: Any) -> torch.Tensor:
    """The relevance of the tokens of a family's first image."""
    return method(taken(name)[0]).attribute(images(name, 1), target=TARGET, attribute_to="tokens", **options)[0]


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    assert (got - expected).abs().max() <= 1e-10 * expected.abs().max()
