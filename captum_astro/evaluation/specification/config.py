"""What a benchmark runs, and all that its figures depend on."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import torch

from captum_astro.evaluation.specification.methods import Method
from captum_astro.evaluation.specification.models import ModelChoice
from captum_astro.metrics.registry import all_metrics

Explained = Literal["predicted", "true", "both"]
Amp = Literal["none", "bfloat16", "float16"]
LIBRARIES = ("captum_astro", "torch", "torchvision", "timm", "captum", "numpy", "pillow")


@dataclass(frozen=True)
class BenchConfig:
    """A benchmark.

    Attributes:
        models: The models.
        methods: What is compared, from `captum_astro.evaluation.specification.methods.methods_of`.
        data: The samples, as `captum_astro.data.specs.samples` reads them.
        metrics: Names, from `captum_astro.evaluation.specification.metrics.metrics_of`.
        limit: At most so many samples.
        explained: Maps for the predicted class, for the true one, or for both.
        steps: Of the perturbation; 20 is the papers' 5 %.
        chunk_size: Consecutive samples that are computed and kept together.
        examples: Maps of so many samples are kept for the report.
        batch_size: Images at a time in the model.
        crop: How an image becomes the model's input: ``timm`` as the model was evaluated, ``none`` the whole image,
            which human maps need; ``auto`` is ``none`` where they are compared with, else ``timm``.
        pretrained: Published weights where there is no checkpoint; otherwise random ones, from the seed.
        amp: Precision of the perturbed forwards, ``none`` for the weights' own. Maps are always made in the weights'.
        device: ``cpu``, ``cuda``, ...
        seed: Of all that is random.

    Raises:
        ValueError: If a value is out of its range, or nothing is asked for.
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
    crop: Literal["auto", "timm", "none"] = "auto"
    pretrained: bool = True
    amp: Amp = "none"
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.models or not self.methods or not self.metrics:
            raise ValueError("A benchmark needs at least one model, one method and one metric.")
        for name, least in (("steps", 2), ("chunk_size", 1), ("examples", 0), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is at least {least}, not {getattr(self, name)}.")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is at least 1, not {self.limit}.")
        for name, known in (
            ("explained", ("predicted", "true", "both")),
            ("crop", ("auto", "timm", "none")),
            ("amp", ("none", "bfloat16", "float16")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {', '.join(known[:-1])} or {known[-1]}, not {getattr(self, name)!r}.")
        try:
            torch.device(self.device)
        except RuntimeError as error:
            raise ValueError(f"device is cpu, cuda, cuda:1, mps, ..., not {self.device!r}.") from error
        twice = next((label for label in self.labels if self.labels.count(label) > 1), None)
        if twice is not None:
            raise ValueError(f"The model {twice} is given twice.")

    @property
    def labels(self) -> list[str]:
        """The models' names in the rows: the file's name is added where one model comes with several."""
        titles = [model.title for model in self.models]
        return [
            model.title if titles.count(model.title) == 1 or model.checkpoint is None
            else f"{model.title}@{model.checkpoint.stem}"
            for model in self.models
        ]  # fmt: skip

    @property
    def autocast(self) -> torch.dtype | None:
        """The type of ``amp``."""
        return None if self.amp == "none" else getattr(torch, self.amp)

    @property
    def geometry(self) -> Literal["timm", "none"]:
        """``crop``; ``auto`` is decided when the data is known, and is ``timm`` until then."""
        return "none" if self.crop == "none" else "timm"

    def described(self) -> dict[str, Any]:
        """All of it as JSON has it. A checkpoint's place does not matter: its weights have a digest."""
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
            "crop": self.crop,
            "pretrained": self.pretrained,
            "amp": self.amp,
            "device": torch.device(self.device).type,
            "seed": self.seed,
        }


def versions(libraries: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """The versions of the libraries and of Python; ``unknown`` for what is not installed, as a source folder.

    Example:
        >>> versions(["torch"])["torch"] == torch.__version__
        True
    """
    return {**{name: _version(name) for name in libraries}, "python": platform.python_version()}


def _version(library: str) -> str:
    if library == "torch":
        return str(torch.__version__)  # with the build, which may change figures
    try:
        return version(library)
    except PackageNotFoundError:
        return "unknown"
