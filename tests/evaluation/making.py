"""A tiny benchmark: a registered model with random weights, some scenes, and processes that can be killed."""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer

from captum_astro.data.samples import Sample, Samples
from captum_astro.evaluation.run.bench import run_bench
from captum_astro.evaluation.run.scoring import Scored, Scorer
from captum_astro.evaluation.specification import BenchConfig, ModelChoice
from captum_astro.evaluation.specification.methods import methods_of
from captum_astro.evaluation.specification.metrics import metrics_of

NAME = "bench_vit_nano"  # for timm, from here on


@register_model
def bench_vit_nano(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    kwargs.pop("pretrained_cfg", None)
    kwargs.pop("pretrained_cfg_overlay", None)
    kwargs.pop("cache_dir", None)
    model = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, **({"num_classes": 10} | kwargs)
    )
    model.pretrained_cfg = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 0.9}
    return model


def config(methods: str = "VTranM,RawAttention,Random", metrics: str = "all", **changes: Any) -> BenchConfig:
    made = BenchConfig(
        models=(ModelChoice("bench_vit_nano"),),
        methods=methods_of(methods),
        metrics=metrics_of(metrics),
        data="scenes",
        limit=6,
        steps=4,
        chunk_size=2,
        examples=3,
        batch_size=8,
        pretrained=False,
    )
    return dataclasses.replace(made, **changes)


def started(folder: Path, made: BenchConfig) -> Any:
    """A process that runs a benchmark with one thread; the libraries are imported once for all such processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.evaluation.making"])
    process = context.Process(target=_run, args=(folder, made))
    process.start()
    return process


def _run(folder: Path, made: BenchConfig) -> None:
    torch.set_num_threads(1)
    run_bench(made, folder)


class Listed:
    """Samples from a list; an exception in it is raised."""

    def __init__(self, items: list[Sample | Exception]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Sample:
        item = self.items[index]
        if isinstance(item, Exception):
            raise item
        return item


def scored(scorer: Scorer, dataset: Samples, numbers: Sequence[int]) -> Scored:
    """The rows of some samples."""
    return scorer.score(scorer.loading(dataset)(numbers))()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
