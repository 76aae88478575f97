"""Datasets by a word on the command line."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from captum_astro.data.boxes import Boxes
from captum_astro.data.clickme import ClickMe
from captum_astro.data.human import HumanSample
from captum_astro.data.scenes import HumanScenes, Scenes

HUMAN = "scenes, clickme:PATH or boxes:FOLDER"


def human_samples(spec: str, limit: int | None = None) -> Iterable[HumanSample]:
    """Images with human maps.

    Args:
        spec: ``scenes``; ``clickme:PATH``, in any form that `ClickMe` reads; or ``boxes:FOLDER``, with a ``boxes.csv``.
        limit: At most so many samples; for scenes 500 if it is not given.

    Raises:
        ValueError: If the word is none of these.

    Example:
        >>> len(list(human_samples("scenes", limit=3)))
        3
    """
    word, _, path = spec.partition(":")
    if word == "scenes" and not path:
        scenes = HumanScenes(Scenes("test", 500 if limit is None else limit))
        return (scenes[index] for index in range(len(scenes)))
    if word == "clickme" and path:
        return islice(ClickMe(Path(path)), limit)
    if word == "boxes" and path:
        boxes = Boxes(Path(path))
        return (boxes[index] for index in range(len(boxes) if limit is None else min(limit, len(boxes))))
    raise ValueError(f"--data is {HUMAN}, not {spec!r}.")
