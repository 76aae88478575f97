"""A comparison of text models' explanations in a folder; it resumes if it was stopped."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from captum_astro.devices import machine
from captum_astro.evaluation.run.seals import DamagedError
from captum_astro.evaluation.run.store import FORMAT, MADE, BenchStore
from captum_astro.evaluation.words.orders import orders_for
from captum_astro.evaluation.words.scoring import rows
from captum_astro.evaluation.words.specification import Review, TextModel, WordsConfig, spread
from captum_astro.metrics.registry import text_metrics
from captum_astro.storage import weights_digest
from captum_astro.versions import LIBRARIES, versions

_CHUNK = 10  # reviews


def run_words(
    subjects: Sequence[TextModel],
    texts: Sequence[str],
    labels: Sequence[int],
    config: WordsConfig,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Score the orders of the tokens by all methods, for the same reviews of every model.

    The folder gets ``run.json`` and ``results.parquet``, which `captum_astro.evaluation.run.results.read_run` reads;
    a finished one is not computed again.

    Args:
        subjects: The models, of different names.
        texts: The test set.
        labels: Its classes.
        config: The settings.
        folder: For the results.
        progress: Callback that receives the number of finished reviews and of all, over the models.

    Raises:
        ValueError: If there is no model or no text, two models have one name, or the folder holds other results.
        OSError: If the folder cannot be written.
    """
    names = [subject.name for subject in subjects]
    if not names or len({*names}) < len(names) or not texts:
        raise ValueError("Give at least one model, models of different names, and at least one text.")
    for subject in subjects:
        subject.model.to(config.device).eval()
    reviews = spread(texts, labels, config.reviews)
    orders = [orders_for(one.model, config.batch_size, config.draws, config.seed) for one in subjects]
    store = BenchStore(folder)
    store.begin(_described(subjects, [refused for _, refused in orders], reviews, config))
    chunks = [reviews[i : i + _CHUNK] for i in range(0, len(reviews), _CHUNK)]
    for model, subject in enumerate(subjects):
        for number, chunk in enumerate(chunks):
            if not _finished(store, (model, number)):
                found = rows(subject, orders[model][0], chunk, config)
                store.add((model, number), found, [], {review.number: review.digest for review in chunk})
            progress(model * len(reviews) + min(_CHUNK * (number + 1), len(reviews)), len(subjects) * len(reviews))
    store.merge(names, len(chunks))


def _finished(store: BenchStore, chunk: tuple[int, int]) -> bool:
    try:
        store.check(chunk)
    except (DamagedError, FileNotFoundError):
        return False
    return True


def _described(
    subjects: Sequence[TextModel], refused: Sequence[dict[str, str]], reviews: Sequence[Review], config: WordsConfig
) -> dict[str, Any]:
    """The record of the run."""
    settings = asdict(config)
    return {
        "format": FORMAT,
        "configuration": {
            "models": [subject.name for subject in subjects],
            "metrics": list(text_metrics()),
            "explained": "predicted",
            **settings,
        },
        "versions": versions([*LIBRARIES, "tokenizers"]),
        "models": {
            subject.name: {"weights": weights_digest(subject.model), "options": dict(subject.options), "left_out": left}
            for subject, left in zip(subjects, refused, strict=True)
        },
        "samples": {"count": len(reviews), "digest": _digest(reviews)},
        MADE: {
            "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "machine": machine(config.device),
        },
    }


def _digest(reviews: Sequence[Review]) -> str:
    """A short digest of all reviews and their places in the test set."""
    words = " ".join(f"{review.number} {review.digest}" for review in reviews)
    return hashlib.sha256(words.encode()).hexdigest()[:16]
