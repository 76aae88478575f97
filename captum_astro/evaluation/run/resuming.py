"""Which chunks of an earlier start still hold: their files are sound, and the samples are those that were scored."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from captum_astro.data.samples import Samples
from captum_astro.evaluation.run.cases import numbers_of, read_sample
from captum_astro.evaluation.run.seals import Chunk, DamagedError, Seal
from captum_astro.evaluation.run.store import BenchStore

SHOWN = 3  # names in a message


class Known(NamedTuple):
    """A sample as it is now."""

    name: str
    digest: str


class Earlier:
    """The results of earlier starts in a folder, compared with the samples as they are now.

    Args:
        store: The folder.
        dataset: The samples.
        size: Samples per chunk.
        say: Callback that receives messages about what is computed again, and why.
    """

    def __init__(self, store: BenchStore, dataset: Samples, size: int, say: Callable[[str], None]) -> None:
        self._store, self._dataset, self._size, self._say = store, dataset, size, say
        self._known: dict[int, dict[int, Known]] = {}  # by chunk and sample

    def finished(self, chunks: Iterable[Chunk]) -> list[Seal]:
        """The seals in the file with all rows, if it is sound and holds these chunks of the present samples.

        Returns:
            An empty list if it is not, or if there is no such file.
        """
        try:
            seals = [seal for seal, _ in self._store.read_merged()]
        except FileNotFoundError:
            return []
        except DamagedError as error:
            self._say(f"{error} It is made again from the chunks.")
            return []
        good = {seal.chunk for seal in seals if not self._changed(seal)}
        return seals if good.issuperset(chunks) else []

    def missing(self, chunks: Iterable[Chunk]) -> list[Chunk]:
        """Those of the chunks that must be computed, with messages about all that is computed again."""
        found, changed = [], dict[str, None]()
        for chunk in chunks:
            names = self._changed_in(chunk)
            changed |= dict.fromkeys(names or [])
            found += [] if names == [] else [chunk]
        if changed:
            names = list(changed)
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            self._say(f"Computed again, as they have changed: {', '.join(names[:SHOWN])}{more}.")
        return found

    def has(self, chunk: Chunk) -> bool:
        """Whether another process has finished a chunk since `missing`."""
        try:
            seal = self._store.check(chunk)
        except (FileNotFoundError, DamagedError):
            return False
        return chunk[1] not in self._known or not self._changed(seal)

    def _changed_in(self, chunk: Chunk) -> list[str] | None:
        """As `_changed`; None if the chunk is not there, or damaged, which is said."""
        try:
            return self._changed(self._store.check(chunk))
        except FileNotFoundError:
            return None
        except DamagedError as error:
            self._say(f"{error} It is computed again.")
            return None

    def _changed(self, seal: Seal) -> list[str]:
        """The names of the samples that are not those that were scored."""
        number = seal.chunk[1]
        if number not in self._known:
            numbers = numbers_of(number, self._size, len(self._dataset))
            reads = ((index, read_sample(self._dataset, index)) for index in numbers)
            self._known[number] = {index: Known(read.name, read.digest) for index, read in reads}
        known = self._known[number]
        if set(known) != set(seal.samples):
            return [one.name for one in known.values()] or ["a sample"]
        return [one.name for index, one in known.items() if seal.samples[index] != one.digest]
