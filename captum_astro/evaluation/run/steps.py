"""The steps of a benchmark in one process: begin, compute what is missing, wait for the others, merge."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from torch import nn

from captum_astro.data.samples import Samples
from captum_astro.evaluation.run.cases import numbers_of
from captum_astro.evaluation.run.fitting import for_model
from captum_astro.evaluation.run.notices import Notices
from captum_astro.evaluation.run.resuming import Earlier
from captum_astro.evaluation.run.rows import Row
from captum_astro.evaluation.run.scoring import Scored, Scorer
from captum_astro.evaluation.run.seals import Chunk, DamagedError, Seal
from captum_astro.evaluation.run.shards import Shard, wait
from captum_astro.evaluation.run.store import BenchStore
from captum_astro.evaluation.run.threads import behind
from captum_astro.evaluation.specification.config import BenchConfig

Progress = Callable[[int, int], None]
ALONE = 20.0  # seconds without a record after which a process begins before the first one


@dataclass(frozen=True)
class Outcome:
    """How a benchmark ended.

    Attributes:
        samples: The number of samples.
        computed: Chunks that this process computed.
        missing: Missing chunks; if there are none, all rows are merged.
        failed: Whether all rows are merged, and every row of a method is a failure.
    """

    samples: int
    computed: int
    missing: int
    failed: bool = False


class Run:
    """The steps of a benchmark.

    Args:
        config: The benchmark, with the metrics that the data supports.
        store: Its folder.
        described: The record of the run.
        shard: This process.
        notices: Those of the other processes.
        say: Callback that receives messages.
    """

    def __init__(
        self,
        config: BenchConfig,
        store: BenchStore,
        described: dict[str, Any],
        shard: Shard,
        notices: Notices,
        say: Callable[[str], None],
    ) -> None:
        self.config, self.store, self.described = config, store, described
        self.shard, self.notices, self.say = shard, notices, say
        self.count = int(described["samples"]["count"])
        per_model = -(-self.count // config.chunk_size)
        self.chunks = list(product(range(len(config.models)), range(per_model)))
        self.mine = shard.mine(self.chunks)

    def begin(self) -> None:
        """Write the record, or check it. The first process writes it, or another if the first writes elsewhere."""

        def absent() -> int:
            if self.store.record.exists():
                return 0
            self.notices.check()
            return 1

        if not self.shard.first:
            wait(absent, min(self.shard.patience, ALONE))
        self.store.begin(self.described)

    def complete(self, dataset: Samples, models: list[nn.Module], roles: Sequence[str], progress: Progress) -> Outcome:
        """Compute what is missing, and merge."""
        earlier = Earlier(self.store, dataset, self.config.chunk_size, self.say)
        seals = earlier.finished(self.chunks if self.shard.first else self.mine)
        if seals:
            self.say("The benchmark is finished.")
            return Outcome(self.count, 0, 0, _failed(seals))
        if self.shard.first:
            self.store.results.unlink(missing_ok=True)  # what it says no longer holds
        missing = earlier.missing(self.chunks if self.shard.first else self.mine)
        todo = set(missing).intersection(self.mine)
        self._compute(dataset, models, roles, todo, progress)
        gone = [chunk for chunk in self.mine if not self.store.rows_file(chunk).exists()]
        if gone and not self.store.results.exists():
            raise GoneError(self.store.rows_file(gone[0]))
        if not self.shard.first:
            return Outcome(self.count, len(todo), 0)
        left = self._wait(earlier, [chunk for chunk in missing if chunk not in todo])
        if left:
            return Outcome(self.count, len(todo), left)
        return Outcome(self.count, len(todo), 0, _failed(self._merge()))

    def _compute(
        self, dataset: Samples, models: list[nn.Module], roles: Sequence[str], todo: set[Chunk], progress: Progress
    ) -> None:
        size = self.config.chunk_size
        total = sum(len(numbers_of(chunk, size, self.count)) for _, chunk in self.mine)
        done = total - sum(len(numbers_of(chunk, size, self.count)) for _, chunk in todo)
        if done:
            self.say(f"{done} of {total} samples are already done.")
        progress(done, total)
        reported: set[str] = set()
        for number in range(len(self.config.models)):
            own = sorted(chunk for model, chunk in todo if model == number)
            for (_, chunk), scored in behind(self._scored(dataset, models, roles, number, own), self._stored):
                _report(scored.rows, reported, self.say)
                done += len(numbers_of(chunk, size, self.count))
                progress(done, total)
            models[number] = nn.Identity()  # free its memory for the next model

    def _scored(
        self, dataset: Samples, models: list[nn.Module], roles: Sequence[str], number: int, chunks: list[int]
    ) -> Iterator[tuple[Chunk, Callable[[], Scored]]]:
        """What the model answered for some chunks, and what computes their rows."""
        if not chunks:
            return
        model = _placed(models[number], self.shard.device(self.config.device))
        scorer = Scorer(self.config.labels[number], model, for_model(self.config, number), roles)
        numbers = [numbers_of(chunk, self.config.chunk_size, self.count) for chunk in chunks]
        with contextlib.closing(scorer.loading(dataset).ahead(numbers, self.config.workers)) as loaded:
            for chunk, one in zip(chunks, loaded, strict=True):
                yield (number, chunk), scorer.score(one)

    def _stored(self, one: tuple[Chunk, Callable[[], Scored]]) -> tuple[Chunk, Scored]:
        chunk, rest = one
        scored = rest()
        self.store.add(chunk, scored.rows, scored.maps, scored.samples)
        return chunk, scored

    def _wait(self, earlier: Earlier, missing: list[Chunk]) -> int:
        """Wait for the chunks of the other processes. Returns the number that are missing at the end."""

        def looked() -> int:
            self.notices.check()
            missing[:] = [chunk for chunk in missing if not earlier.has(chunk)]  # there may be thousands
            return len(missing)

        if looked():
            self.say(
                f"Waiting for {len(missing)} chunks of the other processes. If they write elsewhere, copy their chunks "
                f"and maps into {self.store.folder}."
            )
            if wait(looked, self.shard.patience, pause=2.0):
                gone = f"{len(missing)} chunks are missing: their processes are gone."
                self.say(f"{gone} Run the same command again to resume.")
        return len(missing)

    def _merge(self) -> list[Seal]:
        self.store.keep_record(self.described)  # it may have been deleted meanwhile
        try:
            return self.store.merge(self.config.labels, len(self.chunks) // len(self.config.models))
        except FileNotFoundError as error:
            raise GoneError(Path(error.filename or self.store.folder)) from error
        except DamagedError as error:
            raise ValueError(f"{error} Run the same command again: it is computed again.") from error


class GoneError(ValueError):
    """A chunk that was deleted during the run."""

    def __init__(self, file: Path) -> None:
        super().__init__(
            f"{file} was deleted while the benchmark ran. Run the same command again: only what is missing is computed."
        )


def _failed(seals: Sequence[Seal]) -> bool:
    return any(seal.rows for seal in seals) and not any(seal.good for seal in seals)


def _placed(model: nn.Module, device: str) -> nn.Module:
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"The model cannot be put on {device!r}: {str(error).splitlines()[0]}") from error


def _report(rows: list[Row], reported: set[str], say: Callable[[str], None]) -> None:
    """Report the first failure of each method, and each sample's own once, so that mistyped options are noticed."""
    for row in rows:
        method = f"{row.model}, {row.method}"
        failure = row.failure
        if failure is None or failure.where == "data" or str(failure) in reported or method in reported:
            continue
        reported |= {str(failure), method}
        say(f"Failed: {method}, {row.name}: {failure}. Further failures are only counted, in the report.")
