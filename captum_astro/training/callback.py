"""Explanations while a model is trained: pictures every n steps, and how far the maps moved."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from torch import nn

from captum_astro.caller import warn
from captum_astro.explaining.classes import Wanted
from captum_astro.explaining.given import given, several
from captum_astro.explaining.result import Result, Results
from captum_astro.explaining.session import Session, chosen
from captum_astro.metrics.alignment import spearman
from captum_astro.models.data_config import described
from captum_astro.training.logs import Log, log_of
from captum_astro.training.undisturbed import undisturbed

_LIGHTNING = ("lightning.pytorch", "pytorch_lightning")
_DPI = 100


class ExplainCallback:
    """Draws the explanations of some images every n steps, and compares each map with the one drawn before.

    In a loop call `step`. For Lightning pass it to the trainer: made after Lightning is imported, it is one of its
    callbacks. The model, its gradients, modes, hooks and all random generators stay as they were, so a training with it
    ends with the same weights as one without. Only the first process of a distributed training draws.

    The comparison is Spearman's rank correlation of the patches, one figure per image: 1 if their order is the same, 0
    if it is unrelated, NaN if one map is constant. Training changes the scale of a map, which says nothing about where
    the model looks, and ranks ignore it. A cosine would not do: of two maps without negative values it is high, however
    unrelated they are.

    Args:
        images: The images, as for `captum_astro.explain`: files, PIL images, or preprocessed tensors ``(C, H, W)`` in a
            list or as ``(B, C, H, W)``.
        method: A method's name, with options after colons.
        every: The number of steps between two drawings.
        log_to: A folder, a ``SummaryWriter`` of TensorBoard, or a run of Weights & Biases. With Lightning by default
            the trainer's own logger, TensorBoard's or W&B's.
        target: The explained class of each image, by index or name, or one for all; by default the class that the
            model predicts at the time, so that a map may also move because the prediction changes.

    Attributes:
        every: As above.
        history: The steps drawn so far, each with its correlations; the first has none.

    Raises:
        TypeError: If ``log_to`` is none of these.
        ValueError: If there is no image or no such method, or ``every`` or the number of targets does not fit.

    Example:
        >>> import tempfile, timm
        >>> model = timm.create_model("scenes_vit_tiny_patch4_64", pretrained=True).train()
        >>> images = torch.rand(2, 3, 64, 64, generator=torch.manual_seed(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     callback = ExplainCallback(images, "RawAttention", every=10, log_to=folder, target=[3, 8])
        ...     print(callback.step(model, 0), callback.step(model, 5), callback.step(model, 10))
        [] None [1.0, 1.0]
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> ExplainCallback:
        """A callback of Lightning too, if that is imported."""
        bases = (sys.modules[name].Callback for name in _LIGHTNING if hasattr(sys.modules.get(name), "Callback"))
        return super().__new__(_joined(cls, *(base for base in bases if not issubclass(cls, base))))

    def __init__(
        self,
        images: Any,
        method: str = "VTranM",
        every: int = 500,
        log_to: Any = None,
        target: Wanted | Sequence[Wanted] = None,
    ) -> None:
        self._images = several(images) or [images]
        self._targets = _one_each(target, len(self._images))
        if len(self._targets) != len(self._images):
            raise ValueError(f"target has {len(self._targets)} classes, and there are {len(self._images)} images.")
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every must be a number of steps, 1 or more, not {every!r}.")
        chosen([method])
        self._method, self.every = method, every
        self._log: Log | None = None if log_to is None else log_of(log_to)
        self.history: list[tuple[int, list[float]]] = []
        self._maps: list[torch.Tensor] = []

    def step(self, model: nn.Module, step: int) -> list[float] | None:
        """Draw, if it is time to.

        Args:
            model: The model, compiled or in a DistributedDataParallel as it may be.
            step: The number of steps done. Those that ``every`` divides are drawn, each once.

        Returns:
            The rank correlation of each image's map with the one drawn before, none at the first drawing; None if
            nothing was drawn.

        Warns:
            UserWarning: If the model has diverged: of weights that are not finite nothing can be drawn.

        Raises:
            ValueError: If there is no such class, or it is not known where to log.
            UnsupportedModelError: If the method cannot explain the model.
        """
        drawn = bool(self.history) and self.history[-1][0] == step
        if step % self.every or drawn or not _is_first_process():
            return None
        if self._log is None:
            raise ValueError("log_to is needed in a loop: a folder, a SummaryWriter or a run of Weights & Biases.")
        if not all(parameter.isfinite().all() for parameter in model.parameters()):
            warn(f"Nothing is drawn at step {step}: the model's weights are not finite.")
            return None
        with undisturbed(model) as inside:
            results = self._explained(inside)
            picture = _picture(results)
        maps = [result.grid.detach().float().cpu() for result in results]
        moved = [_correlation(now, before) for now, before in zip(maps, self._maps, strict=bool(self._maps))]
        self._maps = maps
        self.history.append((step, moved))
        figures = {f"spearman/{number}": value for number, value in enumerate(moved)}
        self._log(step, picture, figures)
        return moved

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Lightning's: the first drawing, and its logger if no other was given."""
        if self._log is None and trainer.is_global_zero:
            if trainer.logger is None:
                raise ValueError("The trainer has no logger: give log_to, such as a folder.")
            self._log = log_of(trainer.logger.experiment)
        self.step(described(pl_module), trainer.global_step)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Lightning's: a drawing after each ``every`` steps of the optimiser."""
        self.step(described(pl_module), trainer.global_step)

    def _explained(self, model: nn.Module) -> list[Result]:
        session = Session(model, [self._method])
        return [
            session.results(given(image, session.view), [target])[0]
            for image, target in zip(self._images, self._targets, strict=True)
        ]


def _joined(cls: type[ExplainCallback], *bases: type) -> type[ExplainCallback]:
    """The class with Lightning's callback behind it, whose hooks do nothing."""
    return type(cls.__name__, (cls, *bases), {"__module__": cls.__module__, "__doc__": cls.__doc__}) if bases else cls


def _one_each(target: Wanted | Sequence[Wanted], count: int) -> list[Wanted]:
    if isinstance(target, Sequence) and not isinstance(target, str):
        return list(target)
    return [target] * count


def _is_first_process() -> bool:
    known = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not known or torch.distributed.get_rank() == 0


def _correlation(now: torch.Tensor, before: torch.Tensor) -> float:
    if now.shape != before.shape or not (now.isfinite().all() and before.isfinite().all()):
        return math.nan
    return float(spearman(now[None], before[None]))


def _picture(results: Sequence[Result]) -> Image.Image:
    figure = Results(results).plot()
    figure.set_dpi(_DPI)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
