"""The benchmark's speed compared with the bare forward passes that it needs.

Run ``python -m tests.benchmarks.bench_bench [SCENES] [MODEL]``. Both are timed in wall-clock seconds and in CPU
seconds, which other programs on the machine affect less; half of the bare forward passes run before and half after.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captum_astro.evaluation.run import scoring
from captum_astro.evaluation.run.bench import run_bench
from captum_astro.evaluation.run.explaining import Explaining
from captum_astro.evaluation.specification import BenchConfig, ModelChoice
from captum_astro.evaluation.specification.methods import methods_of
from captum_astro.models import bundled
from captum_astro.models.loading import load_model

BATCH = 16


def clocks() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


class Timed(Explaining):
    """Accumulates the time spent on explanations."""

    spent = np.zeros(2)

    def __call__(self, *arguments: Any) -> Any:
        start = clocks()
        found = super().__call__(*arguments)
        Timed.spent = Timed.spent + clocks() - start
        return found


def bare(model: torch.nn.Module, images: int) -> np.ndarray:
    x = torch.rand(BATCH, 3, 64, 64)
    with torch.inference_mode():
        model(x)
        start = clocks()
        for _ in range(images // BATCH):
            model(x)
    return clocks() - start


def main(scenes: int = 20, name: str = bundled.PLAIN) -> None:
    model = load_model(name)
    counted = [0]

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        counted[0] += len(inputs[0]) if torch.is_inference_mode_enabled() else 0

    placed = scoring.Perturber.__init__

    def hooked(self: Any, network: torch.nn.Module, *arguments: Any, **keywords: Any) -> None:
        network.register_forward_pre_hook(count)
        placed(self, network, *arguments, **keywords)

    scoring.Explaining, scoring.Perturber.__init__ = Timed, hooked
    config = BenchConfig((ModelChoice(name),), methods_of("all"), "scenes", limit=scenes, batch_size=BATCH)
    expected = scenes * len(config.methods) * (2 * 19 + 10)
    before = bare(model, expected // 2)
    with tempfile.TemporaryDirectory() as folder:
        start = clocks()
        run_bench(config, Path(folder))
        whole = clocks() - start
    after = bare(model, expected // 2)
    alone = (before + after) * counted[0] / (2 * (expected // 2 // BATCH * BATCH))
    rest = whole - Timed.spent
    print(f"{scenes} scenes, {len(config.methods)} methods, {torch.get_num_threads()} threads: {counted[0]} forwards")
    for k, unit in enumerate(("seconds", "processor seconds")):
        print(
            f"{unit}: benchmark {whole[k]:.1f}, of that explanations {Timed.spent[k]:.1f}; the rest {rest[k]:.1f}, "
            f"bare forwards {alone[k]:.1f}: {alone[k] / rest[k]:.1%} of their throughput, "
            f"{alone[k] / whole[k]:.1%} with the explanations"
        )


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:2]), *sys.argv[2:3])
