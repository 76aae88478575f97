"""The configuration of a benchmark, with everything that its results depend on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from captum_astro.evaluation.specification.methods import Method
from captum_astro.evaluation.specification.models import ModelChoice
from captum_astro.metrics.registry import all_metrics

Explained = Literal["predicted", "true", "both"]
Amp = Literal["none", "bfloat16", "float16"]


@dataclass(frozen=True)
class BenchConfig:
    """A benchmark.

    Attributes:
        models: The models.
        methods: The methods to compare, from `captum_astro.evaluation.specification.methods.methods_of`.
        data: The samples, as `captum_astro.data.specs.samples` reads them.
        metrics: Names, from `captum_astro.evaluation.specification.metrics.metrics_of`.
        limit: Maximum number of samples.
        explained: Explain the predicted class, the true class, or both.
        steps: Perturbation steps; 20 is the papers' 5 %.
        chunk_size: Consecutive samples that are computed and stored together.
        examples: Number of samples whose maps are stored for the report.
        batch_size: Images at a time in the model.
        compile: Compile the models for the forward passes on perturbed and whole images; maps use them as they are.
        workers: Threads that read samples while those before are scored; 0 reads none ahead. No result depends on it.
        crop: How an image is preprocessed: ``timm`` as the model was evaluated, ``none`` the whole image, which human
            maps need; ``auto`` is ``none`` if they are used, otherwise ``timm``.
        pretrained: Published weights if there is no checkpoint; otherwise random ones, from the seed.
        use_ema: Averaged weights if a checkpoint has raw and averaged ones.
        amp: Precision of the perturbed forward passes, ``none`` for that of the weights. Maps always use the weights'.
        device: ``cpu``, ``cuda``, ...
        seed: Random seed.
        preset: The name and the part of the preset that it was begun as, so that its page has the paper's figures.

    Raises:
        ValueError: If a value is out of range, or there is nothing to run.
    """

    models: tuple[ModelChoice, ...]
    methods: tuple[Method, ...]
    data: str
    metrics: tuple[str, ...] = field(default_factory=lambda: tuple(all_metrics()))
    limit: int | None = None
    explained: Explained = "both"
    steps: int = 20
    chunk_size: int = 10
    examples: int = 40
    batch_size: int = 16
    compile: bool = False
    workers: int = 1
    crop: Literal["auto", "timm", "none"] = "auto"
    pretrained: bool = True
    use_ema: bool = True
    amp: Amp = "none"
    device: str = "cpu"
    seed: int = 0
    preset: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if not self.models or not self.methods or not self.metrics:
            raise ValueError("A benchmark needs at least one model, one method and one metric.")
        for name, least in (("steps", 2), ("chunk_size", 1), ("examples", 0), ("batch_size", 1), ("workers", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}.")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, not {self.limit}.")
        for name, known in (
            ("explained", ("predicted", "true", "both")),
            ("crop", ("auto", "timm", "none")),
            ("amp", ("none", "bfloat16", "float16")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be {', '.join(known[:-1])} or {known[-1]}, not {getattr(self, name)!r}.")
        try:
            torch.device(self.device)
        except RuntimeError as error:
            raise ValueError(f"device must be cpu, cuda, cuda:1, mps, ..., not {self.device!r}.") from error
        twice = next((label for label in self.labels if self.labels.count(label) > 1), None)
        if twice is not None:
            raise ValueError(f"The model {twice} is given twice.")

    @property
    def labels(self) -> list[str]:
        """The models' names in the rows: the file's name is added if one model has several checkpoints."""
        titles = [model.title for model in self.models]
        return [
            model.title if titles.count(model.title) == 1 or model.checkpoint is None
            else f"{model.title}@{model.checkpoint.stem}"
            for model in self.models
        ]  # fmt: skip

    @property
    def autocast(self) -> torch.dtype | None:
        """The dtype of ``amp``."""
        return None if self.amp == "none" else getattr(torch, self.amp)

    @property
    def geometry(self) -> Literal["timm", "none"]:
        """``crop``; ``auto`` is resolved once the data is known, and is ``timm`` until then."""
        return "none" if self.crop == "none" else "timm"

    def described(self) -> dict[str, Any]:
        """The configuration as JSON. A checkpoint's location is not included: its weights have a digest."""
        return {
            "models": self.labels,
            "methods": [method.name for method in self.methods],
            "data": self.data,
            "limit": self.limit,
            "metrics": list(self.metrics),
            "explained": self.explained,
            "steps": self.steps,
            "chunk_size": self.chunk_size,
            "examples": self.examples,
            "batch_size": self.batch_size,
            "compile": self.compile,
            "crop": self.crop,
            "pretrained": self.pretrained,
            "amp": self.amp,
            "device": torch.device(self.device).type,
            "seed": self.seed,
        }
