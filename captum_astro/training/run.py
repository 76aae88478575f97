"""One training run in a folder, from its options to its results."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from torch import nn

from captum_astro.data.tokenisers import TOKENISER, load_tokeniser
from captum_astro.devices import check_device
from captum_astro.models.checkpoint import check_stored, read
from captum_astro.storage import RECORD, read_json, write_whole
from captum_astro.training.checkpoint import seed_everything
from captum_astro.training.config import check_training, keep_config, read_config
from captum_astro.training.curve import best
from captum_astro.training.fit import BEST, CHECKPOINT, CURVE, PICTURE, Plan, fit
from captum_astro.training.task import Config
from captum_astro.training.weights import load_weights, save_weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WEIGHTS, RESULT = "weights.safetensors", "result.json"


def train(
    config: Config,
    folder: Path,
    *,
    device: torch.device | str = "cpu",
    resume: bool = True,
    checkpoint_every: int = 200,
    console: Console | None = None,
) -> dict[str, float]:
    """Train a task's model, or resume the run in the folder; a finished one is not trained again.

    For a finished one its data may lie elsewhere now, and of its files ``run.json``, ``result.json`` and ``curve.csv``
    are enough.

    The folder gets ``run.json`` (the options), ``curve.csv`` and ``curve.png``, ``weights.safetensors`` (see
    `Config.keep`), ``result.json``, and for texts ``tokeniser.json``.

    Args:
        config: The options.
        folder: Folder of this run.
        device: Where to train; a run may resume on another device, but is then not bitwise reproducible.
        resume: Resume a run with the same options; otherwise start again and replace it.
        checkpoint_every: Steps between checkpoints.
        console: Shows progress; None for silence.

    Returns:
        The results: first the metric on test data, then other test metrics, ``valid`` (of the best row), ``step`` and
        ``epoch`` of that row, ``parameters`` and ``seconds``.

    Raises:
        ValueError: If the folder holds another run, the data cannot be read, or an option is out of range.
        OSError: If the folder cannot be written.
    """
    config = replace(config, data=str(Path(config.data).resolve()) if config.data else "")
    check_training(folder)
    if not resume:
        for name in (RECORD, CHECKPOINT, BEST, CURVE, PICTURE, WEIGHTS, RESULT, TOKENISER):
            (folder / name).unlink(missing_ok=True)
    finished = (folder / RESULT).exists()
    keep_config(folder, config, free=("data",) if finished else ())
    if finished:
        return read_result(folder)
    check_device(device)
    seed_everything(config.seed)
    task = config.prepare(folder, device)
    optimiser = config.optimiser(task)
    steps = config.total_steps(task.source)
    plan = Plan(
        steps=steps,
        batch_size=config.batch_size,
        metric=config.metric,
        seed=config.seed,
        clip=config.clip,
        evaluate_every=config.evaluate_every,
        checkpoint_every=checkpoint_every,
    )
    rows = fit(task, optimiser, config.schedule(optimiser, steps), plan, folder, console)
    if config.keep == "best":
        load_weights(task.trained, folder / BEST)
    save_weights(task.model, folder / WEIGHTS, half=config.half)
    load_weights(task.model, folder / WEIGHTS)
    row = best(config.metric, rows) if config.keep == "best" else rows[-1]
    result = {
        **task.test(task.model.eval()),
        "valid": row.valid,
        "step": row.step,
        "epoch": row.epoch,
        "parameters": sum(parameter.numel() for parameter in task.model.parameters()),
        "seconds": rows[-1].seconds,
    }
    write_whole(folder / RESULT, lambda part: part.write_text(json.dumps(result, indent=1) + "\n"))
    for name in (CHECKPOINT, BEST):
        (folder / name).unlink(missing_ok=True)
    return result


def read_result(folder: Path) -> dict[str, float]:
    """The results of a finished run.

    Raises:
        ValueError: If they cannot be read.
        OSError: If there are none.
    """
    found = read_json(folder / RESULT)
    if not found or not all(isinstance(value, (int, float)) for value in found.values()):
        raise ValueError(f"{folder / RESULT} is damaged. Delete it, and the same command trains again.")
    return found


def load_trained(folder: Path | str) -> tuple[nn.Module, Tokenizer | None]:
    """The model of a finished run in eval mode, and for texts its tokeniser.

    Args:
        folder: Folder of the run.

    Raises:
        ValueError: If there is no finished run in it, or its weights are not those of its options.
    """
    folder = Path(folder)
    config = read_config(folder)
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder}: the run is not finished; there is no {WEIGHTS}.")
    _check_size(config, folder)
    model = config.build(folder)
    load_weights(model, folder / WEIGHTS)
    if not (folder / TOKENISER).exists():
        return model.eval(), None
    return model.eval(), load_tokeniser(folder / TOKENISER)


def _check_size(config: Config, folder: Path) -> None:
    """Refuse options of a larger model than the weights are of, before it takes memory: they may be anyone's."""
    found = read(folder / WEIGHTS)
    tensors = {key: value for key, value in found.items() if isinstance(value, torch.Tensor)}
    check_stored(folder / WEIGHTS, tensors)
    fits = config.depth <= len(tensors)  # a block has weights
    if fits:
        with torch.device("meta"):
            needed = sum(parameter.numel() for parameter in config.build(folder).parameters())
        fits = needed <= sum(tensor.numel() for tensor in tensors.values())
    if not fits:
        raise ValueError(
            f"{folder / WEIGHTS} holds fewer weights than the model of {RECORD} has. Train it again, or give another "
            f"folder."
        )
