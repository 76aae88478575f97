"""The effect of each mechanism of the attention: variants of a run, over several seeds."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from captum_astro.extras import needed
from captum_astro.processes import end_with_parent
from captum_astro.storage import write_table, write_whole
from captum_astro.training.bands import bands, plot_bands
from captum_astro.training.compared import markdown, summary
from captum_astro.training.curve import Row, epochs_to, read_csv
from captum_astro.training.fit import CURVE
from captum_astro.training.run import train
from captum_astro.training.task import Config
from captum_astro.training.variants import Variants

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class _Planned:
    """One run of an ablation."""

    variant: str
    seed: int
    config: Config
    place: Path


def run_ablation(
    config: Config,
    variants: Variants,
    folder: Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    reach: float | None = None,
    device: torch.device | str = "cpu",
    jobs: int = 1,
    console: Console | None = None,
) -> str:
    """Train every variant with every seed; finished runs in the folder are reused, others resumed.

    Writes ``runs.csv`` (one row per run), ``ablation.csv`` and ``ablation.md`` (one row per variant), ``curves.csv``
    and ``ablation.png`` (the learning curves, see `captum_astro.training.bands`) after every run, so they exist
    whenever it is stopped.

    Args:
        config: The options that the variants modify.
        variants: Changed options by name.
        folder: Folder of runs and tables.
        seeds: Random seeds of each variant's runs.
        reach: The validation value for which the epoch is reported.
        device: Where to train.
        jobs: Runs at a time. With several, each is a process, and the threads are divided among them; the results then
            differ from those with all threads by rounding.
        console: Shows progress; with several jobs only the finished runs. None for silence.

    Returns:
        The table in Markdown.

    Raises:
        ValueError: If a folder holds another run, two variants would share one, or the data cannot be read.
    """
    pd = needed("An ablation", "pandas")
    planned = _planned(config, variants, folder, seeds)
    finished: dict[int, dict[str, float]] = {}
    text = ""
    for number, result in _results(planned, device, jobs, console):
        finished[number] = result
        done = [planned[place] for place in sorted(finished)]
        curves: dict[str, list[list[Row]]] = {}
        runs: list[dict[str, Any]] = []
        for place, run in zip(sorted(finished), done, strict=True):
            rows = read_csv(run.place / CURVE)
            curves.setdefault(run.variant, []).append(rows)
            epochs = None if reach is None else epochs_to(config.metric, rows, reach)
            runs.append({"variant": run.variant, "seed": run.seed, "epochs_to": epochs, **finished[place]})
        table, band = summary(pd.DataFrame(runs), config.metric), bands(curves)
        text = markdown(table, config.metric, reach)
        _write(folder, {"runs": pd.DataFrame(runs), "ablation": table, "curves": band}, text)
        plot_bands(band, folder / "ablation.png", config.metric, config.task)
    return text


def _planned(config: Config, variants: Variants, folder: Path, seeds: Sequence[int]) -> list[_Planned]:
    """All runs, seed by seed, so that a stopped ablation has compared all variants with the first seeds."""
    names: dict[str, str] = {}
    for name in variants:
        if (other := names.setdefault(_slug(name), name)) != name:
            raise ValueError(f"The variants {other!r} and {name!r} would share the folder {_slug(name)}. Rename one.")
    return [
        _Planned(name, seed, _changed(config, changes, seed), folder / _slug(name) / f"seed-{seed}")
        for seed in seeds
        for name, changes in variants.items()
    ]


def _results(
    planned: Sequence[_Planned], device: torch.device | str, jobs: int, console: Console | None
) -> Iterator[tuple[int, dict[str, float]]]:
    """The number and the results of each run, as they are finished."""
    if jobs == 1:
        for number, run in enumerate(planned):
            if console is not None:
                console.print(f"{run.variant}, seed {run.seed}")
            yield number, train(run.config, run.place, device=device, console=console)
        return
    threads = max(1, torch.get_num_threads() // jobs)
    # a fork of a process that has run PyTorch's threads may hang
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), end_with_parent) as pool:
        running = {
            pool.submit(_train, run.config, run.place, str(device), threads): number
            for number, run in enumerate(planned)
        }
        try:
            for done in as_completed(running):
                run = planned[running[done]]
                yield running[done], done.result()
                if console is not None:
                    console.print(f"{run.variant}, seed {run.seed}: finished")
        finally:  # after an error, those that are running end, and no other begins
            pool.shutdown(wait=False, cancel_futures=True)


def _train(config: Config, place: Path, device: str, threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    return train(config, place, device=device)


def _changed(config: Config, changes: Mapping[str, Any], seed: int) -> Config:
    names = {field.name for field in fields(config)}
    unknown = [name for name in changes if name not in names]
    if unknown:
        raise ValueError(f"{config.task} has no option {', '.join(unknown)}.")
    return replace(config, **{**changes, "seed": seed})


def _write(folder: Path, tables: Mapping[str, pd.DataFrame], text: str) -> None:
    for name, table in tables.items():
        write_table(folder / f"{name}.csv", table)
    write_whole(folder / "ablation.md", lambda part: part.write_text(text + "\n"))


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower())
