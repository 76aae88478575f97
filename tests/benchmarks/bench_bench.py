"""Whether the benchmark keeps its device busy: the rate of its forward passes, and what else takes time.

Run ``python -m tests.benchmarks.bench_bench``; ``--help`` lists its options. The rate of ``bench`` without its
explanations is compared with that of bare forward passes of the same batches, half of which run before and half after.
Parts are in seconds of the clock and of the processor's thread that runs them. Images are decoded and transformed, and
what needs no model is finished and written, beside the rest.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from captum_astro.data.transforms import ModelTransform
from captum_astro.evaluation.run import cases
from captum_astro.evaluation.run.bench import run_bench
from captum_astro.evaluation.run.explaining import Explaining
from captum_astro.evaluation.run.scoring import Scorer
from captum_astro.evaluation.run.steps import Run
from captum_astro.evaluation.run.store import BenchStore
from captum_astro.evaluation.specification import BenchConfig, ModelChoice
from captum_astro.evaluation.specification.methods import methods_of
from captum_astro.evaluation.specification.metrics import metrics_of
from captum_astro.metrics.perturber import Perturber
from captum_astro.models import bundled
from captum_astro.models.loading import load_model

PARTS: dict[str, tuple[Any, str]] = {
    "decode": (cases, "read_sample"),
    "transform": (ModelTransform, "__call__"),
    "forward": (Perturber, "_forward"),
    "explain": (Explaining, "__call__"),
    "score": (Scorer, "score"),
    "finish": (Run, "_stored"),
    "write": (BenchStore, "add"),
    "run": (Run, "_compute"),
}


class Clocks:
    """Seconds of the clock and of the processor's thread, for each part."""

    def __init__(self, device: str) -> None:
        self._device, self._lock = device, threading.Lock()
        self.spent: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
        self.batches: list[int] = []

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose calls are added to a part."""

        def run(*given: Any) -> Any:
            if part == "forward":
                self.batches.append(len(given[1]))
            start = self._now(part)
            found = function(*given)
            took = self._now(part) - start
            with self._lock:
                self.spent[part] += took
            return found

        return run

    def _now(self, part: str) -> np.ndarray:
        if part in ("explain", "run") and self._device != "cpu":  # what is queued belongs to what has asked for it
            torch.accelerator.synchronize()
        return np.array([time.perf_counter(), time.thread_time()])


def bare(model: torch.nn.Module, batches: list[int], like: BenchConfig) -> np.ndarray:
    """The seconds of forward passes of some batches."""
    clocks = Clocks(like.device)
    images = torch.rand(max(batches, default=1), 3, *[ModelTransform(model).size] * 2, device=like.device)
    precision = torch.autocast(like.device, like.autocast, enabled=like.autocast is not None)
    with torch.inference_mode(), precision:
        model(images)

        def run() -> None:
            for size in batches:
                model(images[:size])

        clocks.timed("run", run)()
    return clocks.spent["run"]


def measured(config: BenchConfig) -> Clocks:
    """Run a benchmark, and time its parts."""
    clocks = Clocks(config.device)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for part, (owner, name) in PARTS.items():
            stack.enter_context(patch.object(owner, name, clocks.timed(part, getattr(owner, name))))
        run_bench(config, Path(folder))
    clocks.spent["score"] -= clocks.spent["forward"] + clocks.spent["explain"]
    clocks.spent["finish"] -= clocks.spent["write"]
    return clocks


def asked() -> BenchConfig:
    """The benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=bundled.PLAIN)
    parser.add_argument("--methods", default="all")
    parser.add_argument("--metrics", default="all")
    parser.add_argument("--data", default="scenes")
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--amp", default="none")
    parser.add_argument("--random", action="store_true", help="random weights")
    given = parser.parse_args()
    return BenchConfig(
        (ModelChoice(given.model),),
        methods_of(given.methods),
        given.data,
        metrics=metrics_of(given.metrics),
        limit=given.limit,
        device=given.device,
        batch_size=given.batch_size,
        compile=given.compile,
        workers=given.workers,
        amp=given.amp,
        pretrained=not given.random,
    )


def main() -> None:
    config = asked()
    model = load_model(config.models[0].name, pretrained=config.pretrained).to(config.device)
    clocks = measured(config)
    half = clocks.batches[::2], clocks.batches[1::2]
    before = bare(model, half[0], config)
    again = measured(config)
    alone = before + bare(model, half[1], config)
    spent = {part: (clocks.spent[part] + again.spent[part]) / 2 for part in PARTS}
    forwards, images = sum(clocks.batches), config.limit or 1
    print(
        f"{config.models[0].name}, {images} images of {config.data}, {len(config.methods)} methods, batches of up to "
        f"{config.batch_size}, {torch.get_num_threads()} threads, {config.workers} workers: {forwards} forward passes"
    )
    print("| part | seconds | processor seconds | ms an image |\n|---|---|---|---|")
    for part, (wall, processor) in spent.items():
        print(f"| {part} | {wall:.2f} | {processor:.2f} | {1000 * wall / images:.1f} |")
    rest = spent["run"] - spent["explain"]
    print(
        f"bare forward passes: {forwards / alone[0]:.1f} a second; bench without explanations: "
        f"{forwards / rest[0]:.1f}, {alone[0] / rest[0]:.1%} ({alone[1] / rest[1]:.1%} in processor seconds)"
    )


if __name__ == "__main__":
    main()
