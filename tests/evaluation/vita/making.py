"""Settings, samples and a model for a search."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from captum_astro.data.human import HumanSample
from captum_astro.data.transforms import ModelTransform
from captum_astro.evaluation.vita.config import EvaluationConfig, SearchConfig
from captum_astro.evaluation.vita.evaluate import evaluate
from captum_astro.evaluation.vita.results import Results
from captum_astro.evaluation.vita.search import search
from captum_astro.evaluation.vita.settings import Setting
from tests.families import build

GRID: dict[str, Any] = {"phi": [0.0, 0.3], "alpha": [1.5], "beta": [0.3], "k": [4], "tau": [2, 3]}


def make_samples(count: int, size: int = 32) -> list[HumanSample]:
    """Images and maps of noise, the same in every call, labelled 0, 1, ..."""
    generator = torch.Generator().manual_seed(0)
    return [
        HumanSample(
            torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=generator),
            torch.rand(size, size, generator=generator),
            i % 5,
            f"sample {i}",
        )
        for i in range(count)
    ]


def make_model(name: str) -> nn.Module:
    """One of the families, in float32, with its input normalisation."""
    model = build(name, torch.float32)
    model.pretrained_cfg = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    return model


def model_inputs(model: nn.Module, samples: list[HumanSample]) -> torch.Tensor:
    """The whole images, preprocessed for the model."""
    transform = ModelTransform(model, "none")
    return transform.normalise(torch.stack([transform(sample.image)[0] for sample in samples]))


def searched(model: nn.Module, samples: Any, settings: list[Setting], **given: Any) -> Results:
    """Run a search; arguments that are not those of `search` go to its configuration."""
    return search(model, samples, settings, SearchConfig(**_without(given)), **_with(given))


def evaluated(model: nn.Module, samples: Any, setting: Setting, **given: Any) -> Results:
    """Run an evaluation; arguments that are not those of `evaluate` go to its configuration."""
    return evaluate(model, samples, setting, EvaluationConfig(**_without(given)), **_with(given))


def _with(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name in ("out", "done")}


def _without(given: dict[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in given.items() if name not in ("out", "done")}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in own.items()}
