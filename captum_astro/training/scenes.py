"""The task of the bundled models: digits in scenes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import timm
import torch
from timm.models.pit import PoolingVisionTransformer
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from captum_astro.data.scenes import Scenes, batch
from captum_astro.models.bundled import ASTROMORPHIC, PIT, PLAIN
from captum_astro.training.batches import Batch, Source
from captum_astro.training.options import Count, Fraction, Positive
from captum_astro.training.patch_head import WithPatchHead, patch_loss
from captum_astro.training.pooled import start_from
from captum_astro.training.scores import accuracy, answers
from captum_astro.training.task import Config, Task

_EPOCH = 6400  # scenes; their supply is unlimited
_AT_ONCE = 64
_OTHER_SCENES = 1_000_003  # seeds of validation scenes with training digits


@dataclass(frozen=True, kw_only=True)
class ScenesTask(Config):
    """Options of the scenes. The sizes and attention of timm's classes are fixed; the length is given in steps.

    During training an auxiliary head classifies each token of the last grid (the digit it shows, or background): with
    the classification loss alone, the model does not start to learn for thousands of steps. That head is discarded. The
    schedule is PyTorch's one-cycle.

    Attributes:
        model: The bundled Vision Transformer or PiT, whose attention is fixed, or the astromorphic one. The PiT starts
            from the plain model's weights.
        bfloat16: Whether forward passes are in bfloat16 on CPUs too, as for the plain model's weights (the others were
            trained without): twice as fast with CPU support for it, ten to twenty times as slow without it (before Zen
            4 and Cooper Lake).
        held_out: Number of test scenes with held-out digits.
    """

    task: ClassVar[str] = "scenes"

    model: str = PLAIN
    dim: Count = 96
    depth: Count = 6
    heads: Count = 3
    steps: Count | None = 4500
    lr: Positive = 1.5e-3
    warm_up: Fraction = 0.06
    evaluate_every: Count | None = 250
    keep: Literal["best", "last"] = "last"
    half: bool = True
    bfloat16: bool = False
    held_out: Count = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model not in (PLAIN, PIT, ASTROMORPHIC):
            raise ValueError(f"model must be {PLAIN}, {PIT} or {ASTROMORPHIC}, not {self.model!r}.")
        own = () if self.model == ASTROMORPHIC else (*self.model_options, "dim", "depth", "heads")
        changed = [n for n in (*own, "drop", "mlp_ratio", "epochs") if getattr(self, n) != getattr(type(self), n)]
        if changed:
            other = f"; {ASTROMORPHIC} has (model)" if set(changed) <= {*own} else ""
            raise ValueError(f"{self.model} has no {', '.join(changed)} to choose{other}.")

    def build(self, folder: Path) -> nn.Module:
        """The model; the folder is not needed."""
        del folder
        options: dict[str, Any] = {}
        if self.model == ASTROMORPHIC:
            options = self.model_options | {"embed_dim": self.dim, "depth": self.depth, "num_heads": self.heads}
        return cast(nn.Module, timm.create_model(self.model, **options))

    def prepare(self, folder: Path, device: torch.device | str) -> Task:
        """Build the model and its auxiliary head; scenes are generated on demand."""
        model = self.build(folder)
        if isinstance(model, PoolingVisionTransformer):
            start_from(model, timm.create_model(PLAIN, pretrained=True))
        trained = WithPatchHead(model, bfloat16=self.bfloat16).to(device)
        valid = SceneSource("train", self.seed + _OTHER_SCENES, 500, device)
        tests = SceneSource("test", 0, self.held_out, device)
        return Task(
            trained,
            SceneSource("train", self.seed, _EPOCH, device),
            patch_loss,
            lambda inner: accuracy(cast(WithPatchHead, inner).model, valid, batch_size=_AT_ONCE),
            lambda tested: {"accuracy": accuracy(tested, tests, batch_size=_AT_ONCE)},
            lambda tested: answers(tested, tests, batch_size=_AT_ONCE),
            inner=model,
        )

    def optimiser(self, task: Task) -> Optimizer:
        """AdamW with the same weight decay everywhere; for the astromorphic model by its own groups."""
        if self.model != ASTROMORPHIC:
            return AdamW(task.trained.parameters(), lr=self.lr, weight_decay=self.weight_decay)
        return super().optimiser(task)

    def schedule(self, optimiser: Optimizer, steps: int) -> LRScheduler:
        """PyTorch's one-cycle."""
        return OneCycleLR(optimiser, self.lr, total_steps=steps, pct_start=self.warm_up)


class SceneSource(Source):
    """An endless sequence of scenes without repetition.

    Args:
        split: The split of the digits.
        seed: Random seed of the scenes.
        size: Scenes per epoch.
        device: Where batches are put.
    """

    def __init__(self, split: str, seed: int, size: int, device: torch.device | str) -> None:
        self._split, self._seed, self._size, self._device = split, seed, size, device

    def __len__(self) -> int:
        return self._size

    def order(self, epoch: int, batch_size: int, seed: int) -> list[torch.Tensor]:
        """The next scenes."""
        steps = self.steps_per_epoch(batch_size)
        first = epoch * steps * batch_size
        return list(torch.arange(first, first + steps * batch_size).split(batch_size))

    def batch(self, indices: torch.Tensor) -> Batch:
        """Images ``(B, 3, 64, 64)`` from -1 to 1, digits ``(B,)`` and masks ``(B, 64, 64)``."""
        first, last = int(indices[0]), int(indices[-1])
        images, labels, masks = batch(Scenes(self._split, last + 1, self._seed), range(first, last + 1))
        return ((images - 0.5) / 0.5).to(self._device), labels.to(self._device), masks.to(self._device)
