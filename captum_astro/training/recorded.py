"""What is measured in the attention of a model: memories and their saturation over samples, norms and gradients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from captum_astro.functional.astromorphic_parts import saturated
from captum_astro.models.astromorphic import AstromorphicAttention
from captum_astro.training.batches import Batch
from captum_astro.training.interventions import Call, Memories, attentions, changed
from captum_astro.training.task import Loss


class _Sums:
    """Sums over the samples that one layer has seen."""

    def __init__(self) -> None:
        self.neuron = self.astro = self.samples = torch.zeros(1, 0, 1, 1)
        self.entries = self.saturated = self.neuron_squares = self.astro_squares = 0.0

    def add(self, call: Call) -> None:
        parts = call.parts(call.position)
        self.neuron, self.astro = _added(self.neuron, parts.neuron.sum(0)), _added(self.astro, parts.astro.sum(0))
        places = torch.full((1, parts.neuron.shape[2], 1, 1), float(len(parts.neuron)))
        self.samples = _added(self.samples, places.to(parts.neuron))
        entries = parts.neuron.numel()
        self.entries += entries
        self.saturated += entries * float(saturated(parts.neuron + parts.astro)) if parts.sigma else float("nan")
        self.neuron_squares += float(parts.neuron.double().square().sum())
        self.astro_squares += float(parts.astro.double().square().sum())

    @property
    def figures(self) -> dict[str, float]:
        neuron, astro = ((x / self.entries) ** 0.5 for x in (self.neuron_squares, self.astro_squares))
        return {
            "saturated": self.saturated / self.entries,
            "H_neuron": neuron,
            "H_astro": astro,
            "ratio": neuron / astro if astro else float("nan"),
        }


def recorded(model: nn.Module, run: Callable[[], object]) -> tuple[dict[str, Memories], dict[str, dict[str, float]]]:
    """The memories of every astromorphic layer, over all samples that the model sees meanwhile.

    Args:
        model: The model.
        run: Calls it on the samples.

    Returns:
        By the name of the block, the mean memories and four figures: ``saturated``, the share of entries for which
        sigma is within 1 % of 0 or 1 (NaN without sigma); the root mean squares ``H_neuron`` and ``H_astro``; and their
        ``ratio``, neuron over astro (NaN if astrocytes do not write). Empty if the attention is softmax.

    Raises:
        ValueError: If the model has no astromorphic blocks.
    """
    sums: dict[nn.Module, _Sums] = defaultdict(_Sums)

    def add(call: Call) -> torch.Tensor:
        if isinstance(call.layer, AstromorphicAttention):
            sums[call.layer].add(call)
        return call.output

    with torch.no_grad(), changed(model, add):
        run()
    seen = {name: sums[layer] for name, layer in attentions(model).items() if layer in sums}
    means = {name: Memories(x.neuron / x.samples, x.astro / x.samples) for name, x in seen.items()}
    return means, {name: x.figures for name, x in seen.items()}


def norms(model: nn.Module, loss: Loss, batch: Batch) -> list[dict[str, Any]]:
    """Sizes and gradients of the parts of the attention, layer by layer, on one batch.

    Args:
        model: The model, in the mode in which it is to be measured.
        loss: Its loss.
        batch: The samples.

    Returns:
        A row for each layer and part (``input``, ``attention``, and where they exist ``H_neuron``, ``H_astro``,
        ``W_astro`` and ``M``): ``layer``, ``part``, ``rms``, the root mean square of its entries, and ``gradient``, the
        Euclidean norm of the gradient of the batch's mean loss. ``H_neuron`` and ``H_astro`` have the same gradient,
        because sigma is applied to their sum.

    Raises:
        ValueError: If the model has no astromorphic blocks.
    """
    found: list[tuple[str, str, torch.Tensor]] = []
    names = {layer: name for name, layer in attentions(model).items()}

    def watch(call: Call) -> torch.Tensor:
        output = call.output
        parts: dict[str, Any] = {"input": call.x}
        if isinstance(call.layer, AstromorphicAttention):
            position = call.position
            taken = call.parts(position)
            output = call.joined(taken)
            parts["H_neuron"] = taken.neuron
            if position is not None:
                parts |= {"H_astro": taken.astro, "W_astro": position, "M": call.layer.positions}
        found.extend((names[call.layer], part, x) for part, x in ({"attention": output} | parts).items())
        return output

    with torch.enable_grad(), changed(model, watch):
        value, _ = loss(model, batch)
    gradients = torch.autograd.grad(value, [x for *_, x in found], allow_unused=True)
    return [
        {
            "layer": layer,
            "part": part,
            "rms": float(x.detach().double().square().mean().sqrt()),
            "gradient": 0.0 if gradient is None else float(gradient.double().norm()),
        }
        for (layer, part, x), gradient in zip(found, gradients, strict=True)
    ]


def _added(total: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
    """The sum along dimension 1, of which the shorter is filled with zeros: texts have different lengths."""
    places = max(total.shape[1], more.shape[1])
    total, more = (F.pad(x, (0, 0, 0, 0, 0, places - x.shape[1])) for x in (total.to(more), more))
    return total + more
