"""One setting of ViTA against the plain model, for any methods."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

from captum_astro.astro.vita import ViTA
from captum_astro.capture.modes import check_eval
from captum_astro.data.human import HumanSample
from captum_astro.data.samples import sample_digest
from captum_astro.data.transforms import ModelTransform
from captum_astro.evaluation.vita.results import PLAIN, Results, Store
from captum_astro.evaluation.vita.scoring import METRICS, batched, check_names, prepared, score_table
from captum_astro.evaluation.vita.settings import Setting

METHODS = ("TokenGradCAM", "TokenGradCAMPlusPlus", "VTranM", "AttentionRollout", "IntegratedGradients")


def evaluate(
    model: nn.Module,
    samples: Iterable[HumanSample],
    setting: Setting,
    *,
    methods: Sequence[str] = METHODS,
    metrics: Sequence[str] = ("spearman", "dice", "ssim"),
    explained: Literal["predicted", "label"] = "predicted",
    size: int | None = None,
    batch_size: int = 8,
    out: Path | None = None,
    done: Callable[[int], None] | None = None,
) -> Results:
    """Score maps of the plain and of the modulated model against human maps, sample by sample.

    Args:
        model: A timm model, or a wrapper of one.
        samples: Images with human maps, in an order that stays.
        setting: The astrocytes.
        methods: Names of methods of this package, or ``IntegratedGradients``, Captum's (32 steps, the sum of absolute
            values over the channels).
        metrics: Some of ``spearman``, ``dice``, ``iou`` and ``ssim``.
        explained: The plain model's first choice, or each sample's label.
        size: Side in pixels at which maps are compared; by default the side of the model's input.
        batch_size: Images at a time.
        out: A folder for the results, written batch by batch. If it holds some of the same run, that goes on.
        done: Told how many samples are finished, after each batch.

    Returns:
        Scores with the setting as number 0 and the plain model as -1; ``compare()`` gives the table.

    Raises:
        ValueError: If there is no sample, a name is unknown, a label is missing, or the folder holds another run.
        UnsupportedModelError: If a method cannot explain the model.
    """
    known = _methods()
    check_names("method", methods, known)
    check_names("metric", metrics, METRICS)
    if batch_size < 1:
        raise ValueError(f"batch_size is at least 1, not {batch_size}.")
    transform = ModelTransform(model, "none")
    size = transform.size if size is None else size
    run = {"methods": list(methods), "metrics": list(metrics), "batch_size": batch_size, "size": size}
    check_eval(model)
    store = Store(out, model, [setting], {**run, "explained": explained, **transform.described})
    like = next(model.parameters())
    variants: list[tuple[int, nn.Module]] = [(PLAIN, model), (0, ViTA(model, **setting.keywords))]
    number = count = 0
    for batch in batched(samples, batch_size):
        if not store.has(number, [sample_digest(sample) for sample in batch]):
            x = transform.normalise(torch.stack([transform(sample.image)[0] for sample in batch])).to(like)
            human = prepared(batch, size)
            with torch.no_grad():
                outputs = torch.cat([variant(x) for _, variant in variants])
            top = outputs[: len(batch)].argmax(-1)
            target = top if explained == "predicted" else _labels(batch, top)
            maps = {
                name: torch.cat([_sized(known[name](variant, x, target), size) for _, variant in variants])
                for name in methods
            }
            numbers = [n for n, _ in variants]
            store.add(number, score_table(batch, count, numbers, maps, human, metrics, outputs, top))
        number, count = number + 1, count + len(batch)
        if done is not None:
            done(count)
    if not count:
        raise ValueError("There is no sample.")
    return store.results(number)


def _labels(batch: list[HumanSample], like: torch.Tensor) -> torch.Tensor:
    missing = next((sample.name for sample in batch if sample.label is None), None)
    if missing is not None:
        raise ValueError(f"{missing} has no label: explain the predicted class.")
    return torch.tensor([sample.label for sample in batch], device=like.device)


def _sized(maps: torch.Tensor, size: int) -> torch.Tensor:
    return F.interpolate(maps, (size, size), mode="bilinear")[:, 0] if maps.shape[-1] != size else maps[:, 0]


def _methods() -> dict[str, Any]:
    from captum.attr import IntegratedGradients

    from captum_astro.attr.explainers import explainers
    from captum_astro.attr.vita_grad_cam import ViTAGradCAM

    def integrated(model: nn.Module, x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = IntegratedGradients(model).attribute(x, target=target, n_steps=32, internal_batch_size=64)
        return found.detach().abs().sum(1, keepdim=True).float()

    def ours(method: Any) -> Any:
        return lambda model, x, target: method(model).attribute(x, target=target, attribute_to="pixels")

    # without the two that bring astrocytes of their own
    known = {e.name: ours(e.method) for e in explainers() if not issubclass(e.method, ViTAGradCAM)}
    return {**known, "IntegratedGradients": integrated}
