"""The training loop."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from captum_astro.progress import Lines
from captum_astro.training import checkpoint
from captum_astro.training.batches import Batch
from captum_astro.training.curve import Row, better, plot, write_csv
from captum_astro.training.options import Metric
from captum_astro.training.task import Task
from captum_astro.training.weights import save_weights
from captum_astro.wording import reason

CHECKPOINT, BEST, CURVE, PICTURE = "checkpoint.pt", "best.safetensors", "curve.csv", "curve.png"


@dataclass(frozen=True)
class Plan:
    """How long a model is trained, and how often it is evaluated.

    Attributes:
        steps: Number of optimiser steps.
        batch_size: Samples per step.
        metric: Name of the metric that the task's ``evaluate`` returns.
        seed: Random seed of the data order.
        clip: Maximum gradient norm, over all parameters.
        evaluate_every: Steps between rows of the curve; by default an epoch.
        checkpoint_every: Steps between checkpoints.
    """

    steps: int
    batch_size: int
    metric: Metric = "accuracy"
    seed: int = 0
    clip: float = 1.0
    evaluate_every: int | None = None
    checkpoint_every: int = 200


def fit(
    task: Task,
    optimiser: Optimizer,
    schedule: LRScheduler,
    plan: Plan,
    folder: Path,
    console: Console | None = None,
) -> list[Row]:
    """Train a model, from a checkpoint in the folder if there is one.

    A run that was stopped anywhere and started again ends bit for bit like one that was not: the checkpoint holds
    model, optimiser, schedule, position in the data order, sums for the curve, and all random states. The caller must
    pass the same model, data and options, see `captum_astro.training.run`.

    The loss is computed under bfloat16 autocast on CUDA.

    Args:
        task: The model to train, in place, and its data; the batch order is a function of the seed and the epoch.
        optimiser: Over the model's parameters.
        schedule: Called once per step.
        plan: Duration and intervals.
        folder: Receives the checkpoint, ``curve.csv``, ``curve.png`` and the best weights, ``best.safetensors``.
        console: Shows progress and time left, and a line for each row; None for silence. If it is no terminal, a line a
            minute says how far it is.

    Returns:
        The curve.

    Raises:
        ValueError: If the loss is no longer finite, or the checkpoint cannot be read.
        OSError: If the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run = _Run(task, optimiser, schedule, plan, folder)
    if (folder / CHECKPOINT).exists():
        run.resume()
    per_epoch = task.source.steps_per_epoch(plan.batch_size)
    order: list[torch.Tensor] = []
    task.trained.train()
    lines = None if console is None or console.is_terminal else Lines(console.print, "steps")
    with _progress(console) as progress:
        shown = progress.add_task("Training", total=plan.steps, completed=run.done)
        for step in range(run.done, plan.steps):
            epoch, place = divmod(step, per_epoch)
            if not order or place == 0:
                order = task.source.order(epoch, plan.batch_size, plan.seed)
            rate = run.step(task.source.batch(order[place]))
            progress.update(shown, completed=run.done)
            if lines is not None:
                lines(run.done, plan.steps)
            last = run.done == plan.steps
            if run.done % (plan.evaluate_every or per_epoch) == 0 or last:
                row = run.evaluate(run.done / per_epoch, rate)
                if console is not None:
                    progress.console.print(_line(row, plan))
            if run.done % plan.checkpoint_every == 0 or last:
                run.keep()
    write_csv(run.rows, folder / CURVE)
    plot({"": run.rows}, folder / PICTURE, plan.metric)
    return run.rows


class _Run:
    """Everything that changes while a model is trained; `keep` writes it, `resume` reads it."""

    def __init__(self, task: Task, optimiser: Optimizer, schedule: LRScheduler, plan: Plan, folder: Path) -> None:
        self.task, self.plan, self.folder = task, plan, folder
        self.optimiser, self.schedule = optimiser, schedule
        self.parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
        self.device = next(task.trained.parameters()).device
        self.sums = torch.zeros(3, dtype=torch.float64, device=self.device)  # of losses, of scores, and steps
        self.rows: list[Row] = []
        self.done = 0
        self.started = time.perf_counter()

    def resume(self) -> None:
        state = checkpoint.load(self.folder / CHECKPOINT)
        try:
            self._restore(state)
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"{self.folder / CHECKPOINT} is of another run, or damaged ({reason(error)}). Delete it to begin "
                f"again, or choose another folder."
            ) from error

    def _restore(self, state: dict[str, Any]) -> None:
        own = {name: held for name, held in self._state().items() if name not in ("optimiser", "rows")}
        wrong = [name for name, held in own.items() if not checkpoint.same_form(held, state[name])]
        if not checkpoint.same_form(self.optimiser.state_dict()["param_groups"], state["optimiser"]["param_groups"]):
            wrong.append("optimiser")
        if wrong or not 0 <= state["step"] <= self.plan.steps:
            raise ValueError(f"{', '.join(wrong) or 'step'} differs")
        self.task.trained.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        for parameter, held in self.optimiser.state.items():
            if any(value.shape not in (parameter.shape, ()) for value in held.values()):
                raise ValueError("the optimiser's shapes differ")
        self.rows = [Row(**row) for row in state["rows"]]
        self.done, self.sums = state["step"], state["sums"].to(self.device)
        self.started = time.perf_counter() - state["seconds"]

    def step(self, batch: Batch) -> float:
        """One optimiser step, at the learning rate that is returned."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            value, score = self.task.loss(self.task.trained, batch)
        self.optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.plan.clip)
        rate: float = self.optimiser.param_groups[0]["lr"]
        self.optimiser.step()
        self.schedule.step()
        self.sums += torch.stack([value.detach().double(), score.detach().double(), self.sums.new_ones(())])
        self.done += 1
        return rate

    def evaluate(self, epoch: float, rate: float) -> Row:
        """Add a row to the curve, and save the weights if it is the best."""
        losses, scores, count = self.sums.tolist()
        if not math.isfinite(losses):
            raise ValueError(
                f"The loss was not finite before step {self.done}. Lower the learning rate, or clip lower."
            )
        metric, train = self.plan.metric, scores / count
        if metric == "perplexity":
            train = math.exp(min(train, 80.0))
        model = self.task.trained.eval()
        with torch.no_grad():
            valid = self.task.evaluate(model)
        model.train()
        row = Row(self.done, epoch, losses / count, rate, train, valid, time.perf_counter() - self.started)
        if all(better(metric, row.valid, other.valid) for other in self.rows):
            save_weights(model, self.folder / BEST)
        self.rows.append(row)
        write_csv(self.rows, self.folder / CURVE)
        self.sums.zero_()
        return row

    def keep(self) -> None:
        checkpoint.save(self.folder / CHECKPOINT, self._state())

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.task.trained.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "step": self.done,
            "seconds": time.perf_counter() - self.started,
            "sums": self.sums,
            "rows": [asdict(row) for row in self.rows],
        }


def _progress(console: Console | None) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True, disable=console is None or not console.is_terminal)


def _line(row: Row, plan: Plan) -> str:
    train, valid = (f"{x:.1%}" if plan.metric == "accuracy" else f"{x:.1f}" for x in (row.train, row.valid))
    return (
        f"epoch {row.epoch:.2f}, step {row.step} of {plan.steps}: loss {row.loss:.4f}, {plan.metric} {train} training, "
        f"{valid} validation, {row.seconds:.0f} s"
    )
