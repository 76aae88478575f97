"""Reading ahead and writing behind: the order, how far, and errors at their turn."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch

from captum_astro.data.samples import Sample
from captum_astro.data.specs import samples
from captum_astro.data.transforms import ModelTransform
from captum_astro.evaluation.run.bench import run_bench
from captum_astro.evaluation.run.loading import Loading
from captum_astro.evaluation.run.store import BenchStore
from captum_astro.evaluation.run.threads import ahead, behind
from captum_astro.models.loading import load_model
from captum_astro.storage import read_record
from tests.evaluation.making import Listed, config, contents


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_reading_is_in_order_and_no_further_ahead_than_the_workers(workers: int) -> None:
    begun, threads = [], set()

    def read(item: int) -> int:
        begun.append(item)
        threads.add(threading.current_thread() is threading.main_thread())
        time.sleep(0.01 if item % 2 else 0)
        return item * item

    found = []
    for number, value in enumerate(ahead(range(8), read, workers)):
        found.append(value)
        assert len(begun) <= number + 1 + workers
    assert found == [item * item for item in range(8)]
    assert threads == {workers == 0}


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_in_reading_comes_at_its_turn(workers: int) -> None:
    def read(item: int) -> int:
        if item == 2:
            raise OSError(24, "too many files")
        return item

    found = []
    with pytest.raises(OSError, match="too many files") as raised:
        found.extend(ahead(range(9), read, workers))
    assert (found, raised.value.errno) == ([0, 1], 24)


def test_what_is_read_next_is_read_during_the_work() -> None:
    read = threading.Event()

    def second(item: int) -> int:
        if item:
            read.set()
        return item

    source = ahead([0, 1], second, 1)
    assert next(source) == 0
    assert read.wait(10)


def test_an_item_comes_out_once_it_is_written_while_the_next_is_made() -> None:
    order = []

    def made():
        for item in range(3):
            order.append(f"made {item}")
            yield item

    def write(item: int) -> int:
        order.append(f"wrote {item}")
        return item

    for item in behind(made(), write):
        assert f"wrote {item}" in order
        order.append(f"out {item}")
    assert [word for word in order if word[0] in "mo"] == ["made 0", "made 1", "out 0", "made 2", "out 1", "out 2"]


def test_an_error_in_writing_ends_the_work_and_an_interruption_does_not_lose_what_was_made() -> None:
    made = []

    def items():
        for item in range(9):
            made.append(item)
            yield item

    def full(item: int) -> None:
        raise OSError(28, "disk full")

    with pytest.raises(OSError, match="disk full"):
        list(behind(items(), full))
    assert made == [0, 1]

    def interrupted():
        yield 0
        raise KeyboardInterrupt

    written: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        list(behind(interrupted(), written.append))
    assert written == [0]


@pytest.mark.parametrize("in_order", [False, True])
def test_only_one_thread_reads_a_dataset_that_is_read_in_order(in_order: bool) -> None:
    together, now, most = threading.Barrier(1 if in_order else 3, timeout=30), [], []

    class Slow(Listed):
        def __getitem__(self, index: int) -> Sample:
            now.append(index)
            together.wait()
            most.append(len(now))
            time.sleep(0.01)
            now.remove(index)
            return super().__getitem__(index)

    dataset = Slow(list(samples("scenes", 6)))
    dataset.in_order = in_order
    transform = ModelTransform(load_model("bench_vit_nano", pretrained=False))
    loading = Loading(dataset, transform, None, torch.device("cpu"))
    found = list(loading.ahead([[number] for number in range(6)], 3))
    assert [case.number for loaded in found for case in loaded.cases] == list(range(6))
    assert max(most) == (1 if in_order else 3)


def test_workers_change_nothing(tmp_path: Path) -> None:
    """Neither rows nor record, so a run may go on with another number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        run_bench(config("VTranM,Random", workers=0), tmp_path / "none")
        store = BenchStore(tmp_path / "three")
        store.begin(read_record(tmp_path / "none" / "run.json"))
        run_bench(config("VTranM,Random", workers=3), tmp_path / "three")
    finally:
        torch.set_num_threads(before)
    assert contents(tmp_path / "three") == contents(tmp_path / "none")
