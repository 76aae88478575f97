"""Where pictures and figures go during training: a folder, TensorBoard, or Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from captum_astro.storage import write_whole

Log = Callable[[int, Image.Image, Mapping[str, float]], None]
TAG = "explanations"
FIGURES = "figures.csv"


def log_of(place: Any) -> Log:
    """A function that logs a picture and some figures of a step.

    Args:
        place: A folder, created if it does not exist: ``step-000500.png``, and the figures in ``figures.csv``; a
            ``SummaryWriter`` of TensorBoard; or a run of Weights & Biases, as `wandb.init` returns it.

    Raises:
        TypeError: If it is none of these.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     log_of(folder)(500, Image.new("RGB", (8, 8)), {"spearman/0": 0.5})
        ...     print(*sorted(os.listdir(folder)), Path(folder, FIGURES).read_text())
        figures.csv step-000500.png step,figure,value
        500,spearman/0,0.5
    """
    if isinstance(place, str | os.PathLike):
        return partial(_to_folder, Path(place))
    if callable(getattr(place, "add_image", None)):
        return partial(_to_tensorboard, place)
    if callable(getattr(place, "log", None)):
        return partial(_to_wandb, place)
    raise TypeError(
        f"log_to must be a folder, a SummaryWriter of TensorBoard or a run of Weights & Biases, not "
        f"{type(place).__name__}. A folder always works: log_to='explanations'."
    )


def _to_folder(folder: Path, step: int, picture: Image.Image, figures: Mapping[str, float]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / f"step-{step:06d}.png", lambda part: picture.save(part, "PNG"))
    table = folder / FIGURES
    begun = table.exists()
    with table.open("a", encoding="utf-8") as file:
        if not begun:
            file.write("step,figure,value\n")
        file.writelines(f"{step},{name},{value!r}\n" for name, value in figures.items())


def _to_tensorboard(writer: Any, step: int, picture: Image.Image, figures: Mapping[str, float]) -> None:
    writer.add_image(TAG, np.asarray(picture), step, dataformats="HWC")
    for name, value in figures.items():
        writer.add_scalar(f"{TAG}/{name}", value, step)


def _to_wandb(run: Any, step: int, picture: Image.Image, figures: Mapping[str, float]) -> None:
    image = import_module("wandb").Image(picture)
    # without step=: a run refuses one that is behind its own counter, which the user's own calls advance
    values = {f"{TAG}/{name}": value for name, value in figures.items()}
    run.log({TAG: image, f"{TAG}/step": step, **values})
