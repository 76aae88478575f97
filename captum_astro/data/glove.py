"""GloVe's published word vectors, read line by line."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch

from captum_astro.data.files import DataError, regular_file

_LONGEST = 1 << 20  # characters of a line


def read_glove(file: Path | str, vocabulary: dict[str, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """The vectors of the words in a vocabulary.

    The file, of several gigabytes, is not held in memory. Of a repeated word the first one counts.

    Args:
        file: Text with a word and its numbers on each line, separated by spaces. Words may contain spaces themselves,
            as some in the 840B file do.
        vocabulary: Word to id.

    Returns:
        Ids, long ``(W,)``, and vectors ``(W, d)``.

    Raises:
        DataError: If there is no such file, a line has a different number of values, or no word is known.
    """
    file = regular_file(file)
    ids: dict[int, np.ndarray] = {}
    width = 0
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(iter(partial(lines.readline, _LONGEST), ""), 1):
            width = width or line.count(" ")
            if not width or len(line) == _LONGEST:
                raise DataError(f"{file}, line {number}: no line with a word and its numbers.")
            word, *values = line.rstrip("\n").rsplit(" ", width)
            known = vocabulary.get(word)
            if known is None or known in ids:
                continue
            try:
                vector = np.array(values, dtype=np.float32)
            except ValueError as error:
                raise DataError(f"{file}, line {number}: {str(error)[:100]}.") from error
            if len(vector) != width or not np.isfinite(vector).all():
                raise DataError(f"{file}, line {number}: {len(vector)} finite numbers, where {width} belong.")
            ids[known] = vector
    if not ids:
        raise DataError(f"{file}: none of its words is in the vocabulary of {len(vocabulary)}.")
    return torch.tensor(list(ids)), torch.from_numpy(np.stack(list(ids.values())))


def fill_embedding(weight: torch.Tensor, ids: torch.Tensor, vectors: torch.Tensor) -> None:
    """Write vectors into an embedding, in place, rescaled to the mean square of its initial values.

    Longer vectors are reduced to their principal components.

    Args:
        weight: ``(V, D)``.
        ids: Long ``(W,)``.
        vectors: ``(W, d)``, d at least D.

    Raises:
        DataError: If d is smaller, or there are fewer words than D.
    """
    width = weight.shape[1]
    if vectors.shape[1] < width:
        raise DataError(f"GloVe's vectors have {vectors.shape[1]} numbers, too few for a model of width {width}.")
    if vectors.shape[1] > width:
        centred = vectors - vectors.mean(0)
        variance, axes = torch.linalg.eigh(centred.T.double() @ centred.double())
        if int((variance > variance[-1] * 1e-12).sum()) < width:
            raise DataError(f"{len(vectors)} known words are too few to reduce GloVe's vectors to width {width}.")
        vectors = centred @ axes[:, -width:].flip(-1).to(vectors)
    with torch.no_grad():
        weight[ids] = (vectors * (weight[ids].square().mean() / vectors.square().mean()).sqrt()).to(weight)
