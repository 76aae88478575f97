"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from safetensors.torch import save_file
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from captum_astro.storage import write_whole
from captum_astro.training import checkpoint
from captum_astro.training.batches import Batch, Source
from captum_astro.training.curve import Metric, Row, better, plot, write_csv

Loss = Callable[[nn.Module, Batch], tuple[torch.Tensor, torch.Tensor]]
"""The loss of a batch, and what the metric is made of: the share of right answers, or the mean cross-entropy."""

CHECKPOINT, BEST, CURVE, PICTURE = "checkpoint.pt", "best.safetensors", "curve.csv", "curve.png"


def fit(
    model: nn.Module,
    source: Source,
    loss: Loss,
    optimiser: Optimizer,
    schedule: LRScheduler,
    *,
    steps: int,
    batch_size: int,
    evaluate: Callable[[nn.Module], float],
    folder: Path,
    metric: Metric = "accuracy",
    seed: int = 0,
    clip: float = 1.0,
    evaluate_every: int | None = None,
    checkpoint_every: int = 200,
    console: Console | None = None,
) -> list[Row]:
    """Train a model, from a checkpoint in the folder if there is one.

    A run that was stopped anywhere and started again ends with the same bits as one that was not: the checkpoint holds
    model, optimiser, schedule, place in the data's order, sums for the curve, and all random states. It is the caller's
    part to give the same model, data and options, see `captum_astro.training.run`.

    The loss is computed under bfloat16 autocast on CUDA.

    Args:
        model: Trained in place. On its device batches are expected.
        source: Batches; its order is a function of the seed and the epoch.
        loss: See `Loss`.
        optimiser: Over the model's parameters.
        schedule: Stepped once a step.
        steps: Of the optimiser.
        batch_size: Samples a step.
        evaluate: The metric on validation data, of the model in eval mode, without gradients.
        folder: Gets the checkpoint, ``curve.csv``, ``curve.png`` and the weights of the best row, ``best.safetensors``.
        metric: What ``evaluate`` gives.
        seed: Of the data's order.
        clip: The longest gradient, over all parameters.
        evaluate_every: Steps between rows of the curve; by default an epoch.
        checkpoint_every: Steps between checkpoints.
        console: Shows progress and time left, and a line for each row; None for silence.

    Returns:
        The curve.

    Raises:
        ValueError: If the loss is no longer finite, or the checkpoint cannot be read.
        OSError: If the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = next(model.parameters()).device
    per_epoch = source.steps_per_epoch(batch_size)
    evaluate_every = evaluate_every or per_epoch
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    sums = torch.zeros(3, dtype=torch.float64, device=device)  # of losses, of scores, and steps
    rows: list[Row] = []
    first, before = 0, 0.0
    if (folder / CHECKPOINT).exists():
        state = checkpoint.load(folder / CHECKPOINT)
        _restore(model, optimiser, schedule, state)
        rows = [Row(**row) for row in state["rows"]]
        first, before, sums = state["step"], state["seconds"], state["sums"].to(device)
    started = time.perf_counter() - before
    order: list[torch.Tensor] = []
    model.train()
    with _progress(console) as progress:
        shown = progress.add_task("Training", total=steps, completed=first)
        for step in range(first, steps):
            epoch, place = divmod(step, per_epoch)
            if not order or place == 0:
                order = source.order(epoch, batch_size, seed)
            batch = source.batch(order[place])
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                value, score = loss(model, batch)
            optimiser.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(parameters, clip)
            rate = optimiser.param_groups[0]["lr"]
            optimiser.step()
            schedule.step()
            sums += torch.stack([value.detach().double(), score.detach().double(), sums.new_ones(())])
            done = step + 1
            progress.update(shown, completed=done)
            if done % evaluate_every == 0 or done == steps:
                row = _row(done, done / per_epoch, rate, sums, metric, _evaluated(model, evaluate))
                row = Row(**(asdict(row) | {"seconds": time.perf_counter() - started}))
                if all(better(metric, row.valid, other.valid) for other in rows):
                    save_weights(model, folder / BEST)
                rows.append(row)
                write_csv(rows, folder / CURVE)
                sums.zero_()
                if console is not None:
                    progress.console.print(_line(row, metric, steps))
            if done % checkpoint_every == 0 or done == steps:
                state = {
                    "model": model.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "schedule": schedule.state_dict(),
                    "step": done,
                    "seconds": time.perf_counter() - started,
                    "sums": sums,
                    "rows": [asdict(row) for row in rows],
                }
                checkpoint.save(folder / CHECKPOINT, state)
    write_csv(rows, folder / CURVE)
    plot({"": rows}, folder / PICTURE, metric)
    return rows


def save_weights(model: nn.Module, file: Path, *, half: bool = False) -> None:
    """The weights as safetensors; those that are one tensor under several names, under the first alone.

    Args:
        model: The model.
        file: To write, whole or not at all.
        half: Floats in half precision.
    """
    seen: set[int] = set()
    kept: dict[str, torch.Tensor] = {}
    for name, value in model.state_dict().items():
        if value.data_ptr() in seen and value.numel():
            continue
        seen.add(value.data_ptr())
        kept[name] = (value.half() if half and value.is_floating_point() else value).detach().cpu().contiguous()
    write_whole(file, lambda part: save_file(kept, part))


def load_weights(model: nn.Module, file: Path) -> None:
    """Weights of `save_weights` into a model of the same make.

    Raises:
        ValueError: If they do not fit.
    """
    from safetensors.torch import load_model

    try:
        load_model(model, file)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{file} does not fit {type(model).__name__}: {str(error)[:300]}") from error


@torch.no_grad()
def _evaluated(model: nn.Module, evaluate: Callable[[nn.Module], float]) -> float:
    model.eval()
    value = evaluate(model)
    model.train()
    return value


def _row(step: int, epoch: float, lr: float, sums: torch.Tensor, metric: Metric, valid: float) -> Row:
    losses, scores, count = sums.tolist()
    if not math.isfinite(losses):
        raise ValueError(f"The loss was not finite before step {step}. Lower the learning rate, or clip lower.")
    train = scores / count
    return Row(
        step, epoch, losses / count, lr, train if metric == "accuracy" else math.exp(min(train, 80.0)), valid, 0.0
    )


def _restore(model: nn.Module, optimiser: Optimizer, schedule: LRScheduler, state: dict[str, Any]) -> None:
    try:
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"The checkpoint is of another run: {str(error)[:300]}") from error


def _progress(console: Console | None) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=console is None)


def _line(row: Row, metric: Metric, steps: int) -> str:
    train, valid = (f"{x:.1%}" if metric == "accuracy" else f"{x:.1f}" for x in (row.train, row.valid))
    return (
        f"epoch {row.epoch:.2f}, step {row.step} of {steps}: loss {row.loss:.4f}, {metric} {train} training, "
        f"{valid} validation, {row.seconds:.0f} s"
    )
