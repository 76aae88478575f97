"""An LSTM, one operation at a time, so that each follows its rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from captum_astro.capture.operations import needs_grad, no_rule
from captum_astro.layouts.errors import UnsupportedModelError

Ruled = Callable[[Any, Any, Any], Any]


def written_out(
    ruled: Ruled,
    x: torch.Tensor,
    state: Any,
    weights: Any,
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The result of ``torch.lstm``, whose arguments these are after the first. The gates are constants.

    Args:
        ruled: Runs an operation under its rule, with its arguments and keyword arguments.
        x: The sequences, ``(B, T, D)`` or ``(T, B, D)``.
        state: The first hidden state and the first cell, each ``(layers and directions, B, d)``.
        weights: Of each layer and direction: ``(4 d, D)``, ``(4 d, d)`` and perhaps two biases.
        has_biases: Whether it has biases.
        num_layers: The number of layers.
        dropout: Its probability between the layers.
        train: Whether it is active.
        bidirectional: Whether the sequences are also read backwards.
        batch_first: Whether the samples are the first dimension.

    Raises:
        UnsupportedModelError: If the sequences are packed, dropout is active, or the outputs are projected.
    """
    each = 4 if has_biases else 2
    directions = 2 if bidirectional else 1
    if isinstance(state, torch.Tensor) or (dropout and train) or len(weights) != each * num_layers * directions:
        raise UnsupportedModelError(f"With packed sequences, projections or dropout, {no_rule(torch.lstm)}")
    run = _Run(ruled)
    steps = x.transpose(0, 1) if batch_first else x  # (T, B, D)
    hidden, cells = [], []
    for layer in range(num_layers):
        found = []
        for direction in range(directions):
            number = layer * directions + direction
            own = weights[each * number : each * (number + 1)]
            order = range(len(steps))[::-1] if direction else range(len(steps))
            outputs, cell = _direction(run, steps, (state[0][number], state[1][number]), own, order)
            found.append(torch.stack([outputs[step] for step in range(len(steps))]))
            hidden.append(outputs[order[-1]])
            cells.append(cell)
        steps = torch.cat(found, -1)
    return steps.transpose(0, 1) if batch_first else steps, torch.stack(hidden), torch.stack(cells)


class _Run:
    """Operations under their rules, if they depend on the image."""

    def __init__(self, ruled: Ruled) -> None:
        self._ruled = ruled

    def __call__(self, func: Any, *args: Any) -> torch.Tensor:
        result: torch.Tensor = self._ruled(func, args, {}) if any(map(needs_grad, args)) else func(*args)
        return result


def _direction(
    run: _Run, steps: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor], weights: Any, order: range
) -> tuple[dict[int, torch.Tensor], torch.Tensor]:
    """The output of each step, and the last cell."""
    (hidden, cell), (into, across, *biases) = state, weights
    entering = run(F.linear, steps, into, *biases[:1])
    outputs = {}
    for step in order:
        sums = run(torch.add, entering[step], run(F.linear, hidden, across, *biases[1:]))
        write, keep, new, read = sums.chunk(4, -1)
        kept = run(torch.mul, cell, keep.detach().sigmoid())
        cell = run(torch.add, kept, run(torch.mul, run(torch.tanh, new), write.detach().sigmoid()))
        hidden = outputs[step] = run(torch.mul, run(torch.tanh, cell), read.detach().sigmoid())
    return outputs, cell
