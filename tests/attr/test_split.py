from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from captum_astro.attr import _split
from captum_astro.attr._split import Fitting, Fixed, split_of


class Full:
    """Stands for a device with room for a few samples, and counts what it is asked for."""

    def __init__(self, room: int) -> None:
        self.room, self.asked = room, list[int]()

    def __call__(self, count: int) -> None:
        self.asked.append(count)
        if count > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory.")


def _run(fitting: Fitting, samples: list[int], explain: Callable[[list[int]], Any]) -> list[Any]:
    found = []
    for some in fitting.parts(samples):
        with fitting.trying():
            found.append(explain(some))
    return found


def test_a_gpu_is_asked_for_half_as_many_until_they_fit() -> None:
    full, fitting = Full(3), Fitting(torch.device("cuda"))

    def explain(samples: list[int]) -> torch.Tensor:
        full(len(samples))
        return torch.tensor(samples)

    found = [values.tolist() for values in _run(fitting, list(range(10)), explain)]
    assert found == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    assert full.asked == [10, 5, 2, 2, 2, 2, 2]
    assert [values.tolist() for values in _run(fitting, [7, 5, 3], explain)] == [[7, 5], [3]]
    assert full.asked[7:] == [2, 1]  # what fitted is remembered
    full.room = 0
    with pytest.raises(torch.OutOfMemoryError, match="out of memory"):
        _run(fitting, [0, 1], explain)
    assert full.asked[9:] == [2, 1]


@pytest.mark.parametrize(("free", "sizes"), [(0, [1] * 6), (49_000, [1, 3, 2]), (10**9, [1, 5])])
def test_on_a_cpu_one_is_measured_and_the_others_fill_half_of_the_free_memory(monkeypatch, free, sizes) -> None:
    monkeypatch.setattr(_split, "free_memory", lambda: free)

    def explain(samples: list[int]) -> list[int]:
        assert torch.ones(len(samples), 1000, dtype=torch.float64).any()
        return samples

    found = _run(Fitting(torch.device("cpu")), list(range(6)), explain)
    assert [len(samples) for samples in found] == sizes
    assert [sample for samples in found for sample in samples] == list(range(6))
    assert [len(samples) for samples in _run(Fitting(torch.device("cpu"), 2), list(range(6)), explain)] == (
        sizes if free == 0 else [1, 2, 2, 1]
    )


@pytest.mark.parametrize(
    ("size", "most", "parts"), [(None, None, [[4, 2, 7]]), (None, 2, [[4, 2], [7]]), (1, 2, [[4], [2], [7]])]
)
def test_a_number_is_kept_to(size: int | None, most: int | None, parts: list[list[int]]) -> None:
    split = split_of(size, torch.device("cpu"), most)
    assert isinstance(split, Fixed)
    assert list(split.parts([4, 2, 7])) == parts
    with pytest.raises(torch.OutOfMemoryError), split.trying():
        raise torch.OutOfMemoryError("CUDA out of memory.")


def test_other_errors_are_not_tried_again() -> None:
    fitting = Fitting(torch.device("cuda"))
    parts = fitting.parts([0, 1])
    next(parts)
    with pytest.raises(RuntimeError, match="shape"), fitting.trying():
        raise RuntimeError("shape")


def test_one_at_a_time_where_memory_cannot_be_counted() -> None:
    branches = torch.tensor(True), lambda x: x + 1, lambda x: x - 1
    old = not hasattr(TorchDispatchMode, "supports_higher_order_operators")

    def explain(samples: list[int]) -> list[float]:
        return list(torch.cond(*branches, (torch.tensor(samples),)).tolist())

    found = _run(Fitting(torch.device("cpu")), [4, 2, 7], explain)
    assert found == ([[5], [3], [8]] if old else [[5], [3, 8]])
    with pytest.raises(NotImplementedError, match="the model's own"):
        _run(Fitting(torch.device("cpu")), [4, 2, 7], Mock(side_effect=NotImplementedError("the model's own")))


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "all", [2]])
def test_other_sizes_are_refused(size: object) -> None:
    with pytest.raises(ValueError, match="internal_batch_size must be 'auto' or"):
        split_of(size, torch.device("cpu"))
