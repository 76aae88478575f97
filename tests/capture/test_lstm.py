"""An LSTM written out computes what PyTorch's does, and only its gates are constants."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from captum_astro import UnsupportedModelError
from captum_astro.capture.lstm import written_out

B, T, D, WIDTH = 2, 4, 3, 5


def _plain(func: Any, args: Any, kwargs: Any) -> Any:
    return func(*args, **kwargs)


def _lstm(**options: Any) -> nn.LSTM:
    torch.manual_seed(0)
    return nn.LSTM(D, WIDTH, **options).double().eval()


def _arguments(lstm: nn.LSTM, x: torch.Tensor) -> tuple[Any, ...]:
    """Those of ``torch.lstm`` after the first."""
    directions = 2 if lstm.bidirectional else 1
    first = torch.randn(2, lstm.num_layers * directions, B, WIDTH, dtype=torch.float64)
    return (
        x, (first[0], first[1]), lstm._flat_weights, lstm.bias, lstm.num_layers, lstm.dropout, lstm.training,
        lstm.bidirectional, lstm.batch_first,
    )  # fmt: skip


def _input(lstm: nn.LSTM) -> torch.Tensor:
    torch.manual_seed(1)
    x = torch.randn(B, T, D, dtype=torch.float64)
    return (x if lstm.batch_first else x.transpose(0, 1)).requires_grad_()


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_the_result_is_pytorch_s(bidirectional: bool, num_layers: int, bias: bool, batch_first: bool) -> None:
    lstm = _lstm(bidirectional=bidirectional, num_layers=num_layers, bias=bias, batch_first=batch_first)
    given = _arguments(lstm, _input(lstm))
    for found, expected in zip(written_out(_plain, *given), torch.lstm(*given), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_gates_are_constants() -> None:
    """Two steps by hand, with gates that were computed beforehand."""
    lstm = _lstm(batch_first=True).requires_grad_(False)
    x = _input(lstm)[:, :2].detach().requires_grad_()
    given = _arguments(lstm, x)
    (found,) = torch.autograd.grad(written_out(_plain, *given)[0][:, -1].sum(), x)

    into, across, *biases = given[2]
    (hidden,), (cell,) = given[1]
    for step in range(2):
        sums = x[:, step] @ into.T + hidden @ across.T + biases[0] + biases[1]
        write, keep, new, read = sums.chunk(4, -1)
        cell = keep.detach().sigmoid() * cell + write.detach().sigmoid() * new.tanh()
        hidden = read.detach().sigmoid() * cell.tanh()
    (expected,) = torch.autograd.grad(hidden.sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    (whole,) = torch.autograd.grad(torch.lstm(*given)[0][:, -1].sum(), x)
    assert not torch.allclose(found, whole)


def test_only_what_depends_on_the_image_runs_under_a_rule() -> None:
    ruled: list[Any] = []

    def noted(func: Any, args: Any, kwargs: Any) -> Any:
        ruled.append(func)
        return func(*args, **kwargs)

    lstm = _lstm(batch_first=True).requires_grad_(False)
    x = _input(lstm)
    written_out(noted, *_arguments(lstm, x.detach()))
    assert not ruled
    written_out(noted, *_arguments(lstm, x))
    assert {func.__name__ for func in ruled} == {"linear", "add", "mul", "tanh"}


def test_what_has_no_rule_is_refused() -> None:
    given = list(_arguments(lstm := _lstm(num_layers=2), _input(lstm)))
    with pytest.raises(UnsupportedModelError, match="With packed sequences, projections or dropout, lstm has no"):
        written_out(_plain, given[0], torch.ones(1), *given[2:])  # the batch sizes of a packed sequence
    with pytest.raises(UnsupportedModelError, match="projections"):
        written_out(_plain, *given[:2], given[2][:-1], *given[3:])
    with pytest.raises(UnsupportedModelError, match="dropout"):
        written_out(_plain, *given[:5], 0.5, True, *given[7:])
    written_out(_plain, *given[:5], 0.5, False, *given[7:])  # which is not active
