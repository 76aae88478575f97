"""Losses and metrics of classifiers and language models."""

from __future__ import annotations

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
def accuracy(model: nn.Module, source: Source, order: torch.Tensor | None = None, batch_size: int = 256) -> float:
    """Accuracy of a model in eval mode.

    Args:
        model: Maps inputs to logits.
        source: The samples; batch elements after inputs and classes are ignored.
        order: The order in which they are read, such as by length; the result does not depend on it.
        batch_size: Samples at a time.
    """
    order = torch.arange(len(source)) if order is None else order
    right = 0
    for indices in order.split(batch_size):
        inputs, labels, *_ = source.batch(indices)
        right += int((model(inputs).argmax(-1) == labels).sum())
    return right / len(source)


@torch.no_grad()
def negative_log_likelihood(
    model: nn.Module, ids: torch.Tensor, length: int, stride: int | None = None, batch_size: int = 16
) -> tuple[float, int]:
    """Cross-entropy of a text under a causal language model in eval mode, in windows.

    Every token but the first is predicted once, from the longest window that holds it last: with a stride below the
    length, each after the first window sees at least ``length - stride`` tokens.

    Args:
        model: Maps ids ``(B, n)`` to logits ``(B, n, V)``.
        ids: Long ``(n,)``, at least two.
        length: Tokens per window.
        stride: Distance between windows; by default the length, which is fastest.
        batch_size: Windows at a time.

    Returns:
        The sum over tokens, in nats, and how many tokens were predicted.

    Raises:
        ValueError: If the stride is not from 1 to the length.
    """
    stride = stride or length
    if not 1 <= stride <= length:
        raise ValueError(f"stride must be from 1 to the length of a window, {length}, not {stride}.")
    device = next(model.parameters()).device
    whole = len(ids) - 1
    starts = [0] + [start for start in range(stride, whole, stride) if start + length - stride < whole]
    total = 0.0
    full = [start for start in starts if start + length <= whole]
    groups = [full[i : i + batch_size] for i in range(0, len(full), batch_size)]
    groups += [[start] for start in starts if start + length > whole]
    for group in groups:
        size = min(length, whole - group[0])
        seen = torch.stack([ids[start : start + size + 1] for start in group]).to(device)
        each = F.cross_entropy(model(seen[:, :-1]).float().transpose(1, 2), seen[:, 1:], reduction="none")
        fresh = torch.ones_like(each)
        for row, start in enumerate(group):
            fresh[row, : 0 if start == 0 else length - stride] = 0
        total += float((each * fresh).double().sum())
    return total, whole
