"""Attention that a model computes by itself, followed from its softmax to its product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from captum_astro.capture.written_out import WrittenOut
from captum_astro.functional.attention import Given
from captum_astro.functional.operations import Recorded

Q, K, V = torch.randn(3, 2, 4, 5, 3)
SCORES = Q @ K.transpose(-2, -1)


class Seeing(TorchFunctionMode):
    """Shows each operation."""

    def __init__(self, written: WrittenOut) -> None:
        super().__init__()
        self.written, self.found = written, list[Recorded]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if (recorded := self.written.see(func, args, result)) is not None:
            self.found.append(recorded)
        return result


def _seen(compute: Callable[[], torch.Tensor], scores: bool = False) -> Seeing:
    with Seeing(WrittenOut(scores)) as seeing:
        compute()
    return seeing


FORMS: dict[str, Callable[[], torch.Tensor]] = {
    "@": lambda: SCORES.softmax(-1) @ V,
    "matmul": lambda: torch.matmul(torch.softmax(SCORES, -1), V),
    "dropout": lambda: F.dropout(F.softmax(SCORES, -1), 0.0) @ V,
    "dtype and layout": lambda: SCORES.softmax(-1).to(torch.float64).type_as(V).contiguous() @ V,
    "einsum": lambda: torch.einsum("bhij,bhjd->bhid", SCORES.softmax(-1), V),
}


@pytest.mark.parametrize("form", FORMS)
def test_map_and_values(form: str) -> None:
    seeing = _seen(FORMS[form])
    [recorded] = seeing.found
    assert isinstance(recorded.map, Given)
    torch.testing.assert_close(recorded.map.attention, SCORES.softmax(-1))
    torch.testing.assert_close(recorded.value, V)
    assert recorded.map.logits is None
    assert not seeing.written.swapped


def test_transposed() -> None:
    """``V^T A^T``, as where channels come first."""
    seeing = _seen(lambda: V.transpose(-2, -1) @ SCORES.softmax(-1).transpose(-1, -2))
    [recorded] = seeing.found
    assert isinstance(recorded.map, Given)
    torch.testing.assert_close(recorded.map.attention, SCORES.softmax(-1))
    torch.testing.assert_close(recorded.value, V)
    assert seeing.written.swapped


def test_scores_are_kept_if_asked_for() -> None:
    [recorded] = _seen(FORMS["@"], scores=True).found
    assert isinstance(recorded.map, Given)
    assert recorded.map.logits is not None
    torch.testing.assert_close(recorded.map.logits, SCORES)


@pytest.mark.parametrize(
    "compute",
    [
        lambda: SCORES.softmax(-1).square() @ V,  # another map, unless the layout says where it is read
        lambda: V.transpose(-2, -1) @ SCORES.softmax(-1),
        lambda: SCORES.softmax(-1).mean(),
        lambda: SCORES.softmax(-1).transpose(0, 1) @ V.transpose(0, 1),
    ],
)
def test_what_is_no_attention(compute: Callable[[], torch.Tensor]) -> None:
    assert not _seen(compute).found


def test_a_map_that_the_model_changes_is_followed_and_a_softmax_outside_is_forgotten() -> None:
    written = WrittenOut()
    with Seeing(written) as seeing:
        changed = SCORES.softmax(-1).square()
        written.follow(changed)
        changed @ V
        probabilities = SCORES.softmax(-1)
        written.forget()
        probabilities @ V
    [recorded] = seeing.found
    assert isinstance(recorded.map, Given)
    torch.testing.assert_close(recorded.map.attention, SCORES.softmax(-1).square())
