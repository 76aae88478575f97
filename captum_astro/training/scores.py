"""Losses and metrics of classifiers and language models."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from captum_astro.training.batches import Batch, Source
from captum_astro.training.task import Loss


def classification(smoothing: float = 0.0) -> Loss:
    """Cross-entropy and accuracy of a batch of inputs and classes.

    Args:
        smoothing: Label smoothing, spread equally over all classes.
    """

    def loss(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        logits = model(batch[0]).float()
        right = (logits.detach().argmax(-1) == batch[1]).float().mean()
        return F.cross_entropy(logits, batch[1], label_smoothing=smoothing), right

    return loss


def language(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of the next tokens, returned twice: as loss and for the perplexity."""
    value = F.cross_entropy(model(batch[0]).float().flatten(0, 1), batch[1].flatten())
    return value, value.detach()


@torch.no_grad()
def answers(model: nn.Module, source: Source, order: torch.Tensor | None = None, batch_size: int = 256) -> torch.Tensor:
    """Which samples a model in eval mode classifies correctly.

    Args:
        model: Maps inputs to logits.
        source: The samples; batch elements after inputs and classes are ignored.
        order: The order in which they are read, such as by length; the result does not depend on it.
        batch_size: Samples at a time.

    Returns:
        1 for each sample that is, 0 otherwise, in the order of the source: float64, ``(N,)``.
    """
    order = torch.arange(len(source)) if order is None else order
    right = torch.zeros(len(source), dtype=torch.float64)
    for indices in order.split(batch_size):
        inputs, labels, *_ = source.batch(indices)
        right[indices] = (model(inputs).argmax(-1) == labels).double().cpu()
    return right


def accuracy(model: nn.Module, source: Source, order: torch.Tensor | None = None, batch_size: int = 256) -> float:
    """The share of correct `answers`; takes the same arguments."""
    return float(answers(model, source, order, batch_size).mean())


@torch.no_grad()
def token_losses(
    model: nn.Module, ids: torch.Tensor, length: int, stride: int | None = None, batch_size: int = 16
) -> torch.Tensor:
    """Cross-entropy of each token of a text under a causal language model in eval mode, in windows.

    Every token but the first is predicted once, from the longest window that holds it last: with a stride below the
    length, each after the first window sees at least ``length - stride`` tokens.

    Args:
        model: Maps ids ``(B, n)`` to logits ``(B, n, V)``.
        ids: Long ``(n,)``, at least two.
        length: Tokens per window.
        stride: Distance between windows; by default the length, which is fastest.
        batch_size: Windows at a time.

    Returns:
        In nats, float64, ``(n - 1,)``.

    Raises:
        ValueError: If the stride is not from 1 to the length.
    """
    stride = stride or length
    if not 1 <= stride <= length:
        raise ValueError(f"stride must be from 1 to the length of a window, {length}, not {stride}.")
    device = next(model.parameters()).device
    whole = len(ids) - 1
    starts = [0] + [start for start in range(stride, whole, stride) if start + length - stride < whole]
    losses = torch.zeros(whole, dtype=torch.float64)
    full = [start for start in starts if start + length <= whole]
    groups = [full[i : i + batch_size] for i in range(0, len(full), batch_size)]
    groups += [[start] for start in starts if start + length > whole]
    for group in groups:
        size = min(length, whole - group[0])
        seen = torch.stack([ids[start : start + size + 1] for start in group]).to(device)
        each = F.cross_entropy(model(seen[:, :-1]).float().transpose(1, 2), seen[:, 1:], reduction="none")
        for row, start in enumerate(group):
            fresh = 0 if start == 0 else length - stride
            losses[start + fresh : start + size] = each[row, fresh:].double().cpu()
    return losses


def stretches(losses: torch.Tensor, length: int) -> torch.Tensor:
    """The losses of a text's tokens as samples: of stretches, because neighbouring tokens depend on each other.

    Args:
        losses: ``(n,)``.
        length: Tokens in a stretch, about: their lengths differ by one at most.

    Returns:
        One number for each stretch, whose mean is that of the losses: ``(ceil(n / length),)``.

    Example:
        >>> stretches(torch.tensor([1.0, 3.0, 4.0, 4.0]), 2).tolist()
        [2.0, 4.0]
    """
    parts = losses.tensor_split(math.ceil(len(losses) / length))
    return torch.stack([part.sum() for part in parts]) * (len(parts) / len(losses))
