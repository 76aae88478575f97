"""A single change between two starts: what is affected is computed again, or the run is refused; nothing is mixed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from captum_astro.data.samples import Sample
from captum_astro.evaluation.run import bench as module
from captum_astro.evaluation.run import read_run, run_bench
from captum_astro.evaluation.run.rows import SCHEMA
from captum_astro.evaluation.specification import BenchConfig, ModelChoice
from captum_astro.evaluation.specification.methods import methods_of
from captum_astro.evaluation.specification.metrics import metrics_of
from captum_astro.models.loading import load_model
from tests.evaluation.making import NAME, Listed, config, contents

COUNT, SIZE = 40, 4  # more samples than are looked at to see which annotations there are


def _sample(number: int) -> Sample:
    generator = torch.Generator().manual_seed(number)
    image = torch.randint(0, 256, (3, 8, 8), generator=generator, dtype=torch.uint8)
    mask = torch.zeros(8, 8, dtype=torch.int8)
    mask[:, : 1 + number % 6] = 1
    return Sample(image, number % 10, mask, torch.rand(8, 8, generator=generator), f"image {number}")


class Start(dict[str, Any]):
    """One start of the benchmark: what it is given, each of which a test may change."""

    def __init__(self, folder: Path, weights: Path) -> None:
        super().__init__(folder=folder, weights=weights, samples=[_sample(number) for number in range(COUNT)])
        self["config"] = config(
            "Random", "accuracy,Spearman,mIoU", limit=None, chunk_size=SIZE, examples=3, pretrained=True,
            models=(ModelChoice(NAME, weights),),
        )  # fmt: skip
        self["said"] = []

    def run(self, monkeypatch: pytest.MonkeyPatch) -> int:
        """The number of chunks computed."""
        monkeypatch.setattr(module, "samples", lambda spec, limit: Listed(list(self["samples"])))
        return run_bench(self["config"], self["folder"], say=self["said"].append).computed

    def sample(self, number: int, **changes: Any) -> None:
        self["samples"][number] = self["samples"][number]._replace(**changes)

    def set(self, **changes: Any) -> None:
        self["config"] = BenchConfig(**{**self["config"].__dict__, **changes})

    def chunk(self, number: int) -> Path:
        return Path(self["folder"], "chunks", f"rows-00-{number:06d}.parquet")

    @property
    def results(self) -> Path:
        return Path(self["folder"], "results.parquet")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights and a finished run."""
    folder = tmp_path_factory.mktemp("finished")
    torch.manual_seed(0)
    torch.save(load_model(NAME, pretrained=False).state_dict(), folder / "w.pt")
    with pytest.MonkeyPatch.context() as patch:
        assert Start(folder / "run", folder / "w.pt").run(patch) == COUNT // SIZE
    return folder


@pytest.fixture
def start(finished: Path, tmp_path: Path) -> Start:
    shutil.copytree(finished, tmp_path / "copy")
    return Start(tmp_path / "copy" / "run", tmp_path / "copy" / "w.pt")


def _edit_image(start: Start) -> None:
    start.sample(5, image=255 - start["samples"][5].image)


def _reorder(start: Start) -> None:
    samples = start["samples"]
    samples[5], samples[30] = samples[30], samples[5]


def _damage(file: Path) -> None:
    held = bytearray(file.read_bytes())
    held[50] ^= 1  # in the first column
    file.write_bytes(held)


def _swap(start: Start) -> None:
    one, other = start.chunk(1), start.chunk(7)
    held = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(held)


def _empty_results(start: Start) -> None:
    pq.write_table(SCHEMA.empty_table(), start.results)


def _cut_results(start: Start) -> None:
    pq.write_table(pq.read_table(start.results).slice(0, 20), start.results)


def _other_weights(start: Start) -> None:
    torch.manual_seed(1)
    torch.save(load_model(NAME, pretrained=False).state_dict(), start["weights"])


def _edit_record(start: Start, **changes: Any) -> None:
    file = Path(start["folder"], "run.json")
    record = json.loads(file.read_text())
    record["configuration"] |= changes
    file.write_text(json.dumps(record))


AGAIN: dict[str, tuple[Callable[[Start], object], int]] = {  # the change, and how many chunks are computed
    "an image": (_edit_image, 1),
    "a label": (lambda start: start.sample(5, label=3), 1),
    "a name": (lambda start: start.sample(5, name="other"), 1),
    "a mask": (lambda start: start.sample(5, mask=1 - start["samples"][5].mask), 1),
    "a human map": (lambda start: start.sample(5, human=start["samples"][5].human.flip(0)), 1),
    "a sample that cannot be read": (lambda start: start["samples"].__setitem__(5, OSError("cut")), 1),
    "the order": (_reorder, 2),
    "the batch size": (lambda start: start.set(batch_size=3), 0),
    "results deleted": (lambda start: start.results.unlink(), 0),
    "results damaged": (lambda start: _damage(start.results), 0),
    "results of no rows": (_empty_results, 0),
    "results of fewer rows": (_cut_results, 0),
    "results of no bytes": (lambda start: start.results.write_bytes(b""), 0),
}
CHUNKS: dict[str, tuple[Callable[[Start], object], int]] = {  # of an unfinished run
    "a chunk deleted": (lambda start: start.chunk(1).unlink(), 1),
    "a chunk damaged": (lambda start: _damage(start.chunk(1)), 1),
    "a chunk cut": (lambda start: start.chunk(1).write_bytes(start.chunk(1).read_bytes()[:-30]), 1),
    "a chunk of no rows": (lambda start: pq.write_table(SCHEMA.empty_table(), start.chunk(1)), 1),
    "two chunks swapped": (_swap, 2),
    "a map deleted": (lambda start: next(start["folder"].glob("maps/*")).unlink(), 1),
    "a map damaged": (lambda start: _damage(next(start["folder"].glob("maps/*"))), 1),
}
REFUSED: dict[str, tuple[Callable[[Start], object], str]] = {  # the change, and what the message names
    "a sample added": (lambda start: start["samples"].append(_sample(COUNT)), "samples.count"),
    "a sample removed": (lambda start: start["samples"].pop(5), "samples.count"),
    "all labels removed": (
        lambda start: start.__setitem__("samples", [one._replace(label=None) for one in start["samples"]]),
        "configuration.metrics, samples.has",
    ),
    "a method's option": (lambda start: start.set(methods=methods_of("AttentionRollout:start_layer=1")), "methods"),
    "a metric": (lambda start: start.set(metrics=metrics_of("accuracy,mIoU")), "configuration.metrics"),
    "a metric's option": (lambda start: start.set(steps=7), "configuration.steps"),
    "the weights": (_other_weights, f"models.{NAME}.weights"),
    "the model": (lambda start: start.set(models=(ModelChoice(NAME, start["weights"], word="b"),)), "models"),
    "the target": (lambda start: start.set(explained="predicted"), "configuration.explained"),
    "the seed": (lambda start: start.set(seed=1), "configuration.seed"),
    "the chunk size": (lambda start: start.set(chunk_size=5), "configuration.chunk_size"),
    "the record deleted": (lambda start: Path(start["folder"], "run.json").unlink(), "rows without run.json"),
    "the record edited": (lambda start: _edit_record(start, steps=9), "configuration.steps"),
}  # fmt: skip


@pytest.mark.parametrize("what", [*AGAIN, *CHUNKS])
def test_what_a_change_affects_is_computed_again(start: Start, monkeypatch, what: str) -> None:
    change, chunks = {**AGAIN, **CHUNKS}[what]
    if what in CHUNKS:
        start.results.unlink()
    change(start)
    assert start.run(monkeypatch) == chunks
    fresh = Start(start["folder"].parent / "fresh", start["weights"])
    fresh["samples"], fresh["config"] = start["samples"], start["config"]
    fresh.run(monkeypatch)
    ours, theirs = contents(start["folder"]), contents(fresh["folder"])
    if what == "the batch size":  # the record keeps the first
        del ours["run.json"], theirs["run.json"]
    assert ours == theirs
    assert read_run(start["folder"]).finished
    if what == "an image":
        assert start["said"][0] == "Computed again, as they have changed: image 5."
    if "damaged" in what:
        assert " is damaged" in start["said"][0]


@pytest.mark.parametrize("what", REFUSED)
def test_another_run_is_refused(start: Start, monkeypatch, what: str) -> None:
    change, named = REFUSED[what]
    change(start)
    before = contents(start["folder"])
    with pytest.raises(ValueError, match=named.replace(".", r"\.")):
        start.run(monkeypatch)
    assert contents(start["folder"]) == before


def test_other_versions_are_refused(start: Start, monkeypatch) -> None:
    monkeypatch.setattr(module, "versions", lambda: {"timm": "0"})
    with pytest.raises(ValueError, match=r"versions\.timm"):
        start.run(monkeypatch)


def test_any_flipped_bit_of_a_chunk_is_noticed(start: Start, monkeypatch) -> None:
    from captum_astro.evaluation.run.store import BenchStore

    store, file = BenchStore(start["folder"]), start.chunk(1)
    store.read_record()
    whole, expected = file.read_bytes(), store.read((0, 1))
    draw, noticed = np.random.default_rng(0), 0
    for at in draw.choice(len(whole), 300, replace=False):
        held = bytearray(whole)
        held[at] ^= 1 << int(draw.integers(8))
        file.write_bytes(held)
        try:
            seal, rows = store.read((0, 1))
        except ValueError:
            noticed += 1
        else:  # a bit that means nothing, or one of the digests of the samples, which are compared later
            assert rows.equals(expected[1])
            assert seal._replace(samples={}, good=0, maps="") == expected[0]._replace(samples={}, good=0, maps="")
    assert noticed > 200
