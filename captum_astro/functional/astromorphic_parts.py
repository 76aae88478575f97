"""Astromorphic attention taken apart: what synapses and astrocytes wrote, and what is read from it.

See `captum_astro.functional.astromorphic` for the equations. Here the memory is kept in its two parts, so that each can
be measured, changed, or given a gradient of its own. That takes space, in the causal form for one memory a token: it is
for analysis, not for training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from captum_astro.functional.astromorphic import Nonlinearity, check_options, gains
from captum_astro.functional.astromorphic_effective import memory_read
from captum_astro.functional.astromorphic_features import full_precision, normaliser, read_and_written
from captum_astro.functional.attention import widen


@dataclass(frozen=True)
class Parts:
    """The parts of one call of the attention, see `parts_of`.

    Attributes:
        read: ``phi(Q)``, ``(B, H, n, m)``.
        normaliser: ``C``, ``(B, H, n, 1)``.
        neuron: ``H_neuron``, ``(B, H, 1, m, d_v)``; in the causal form the memory at each token, ``(B, H, n, m, d_v)``.
        astro: ``H_astro``, of the same shape.
        sigma: Whether there is a sigma, over the sum of the two.
        outer: The factor after it.
    """

    read: torch.Tensor
    normaliser: torch.Tensor
    neuron: torch.Tensor
    astro: torch.Tensor
    sigma: bool
    outer: float

    @property
    def output(self) -> torch.Tensor:
        """What the attention returns: ``(B, H, n, d_v)``."""
        memory = self.neuron + self.astro
        memory = (torch.sigmoid(memory) if self.sigma else memory) * self.outer
        return memory_read(memory.transpose(-2, -1), self.read) / self.normaliser


def parts_of(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    position: torch.Tensor | None = None,
    *,
    scale: float,
    alpha: float = 0.25,
    nonlinearity: Nonlinearity = "inside",
    causal: bool = False,
    mask: torch.Tensor | None = None,
) -> Parts:
    """Take one call of `astromorphic_attention` apart; takes the same arguments.

    Args:
        query: ``(B, H, n, m)``.
        key: ``(B, H, n, m)``.
        value: ``(B, H, n, d_v)``.
        position: ``(H, n, m)``; None without relative positions, where ``H_astro`` is 0.
        scale: ``s``.
        alpha: The exponent of the calcium response.
        nonlinearity: Where sigma is applied. ``H_neuron`` and ``H_astro`` are divided by s unless it is ``"outside"``.
        causal: Whether position t sees only tokens up to t.
        mask: Bool ``(B, n)``, False for padding.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> q, k, v = torch.randn(3, 1, 2, 6, 4, dtype=torch.float64)
        >>> parts = parts_of(q, k, v, torch.ones(2, 6, 4), scale=4.0)
        >>> parts.neuron.shape
        torch.Size([1, 2, 1, 4, 4])
    """
    check_options(scale, alpha, nonlinearity)
    inner, outer = gains(nonlinearity, scale)
    # without sigma the one factor is the memory's, as printed in Eq. 9 and 10
    inner, outer, sigma = (outer, 1.0, False) if inner is None else (inner, outer, True)
    with full_precision(query.device):
        value = widen(value) * inner
        read, written, keys = read_and_written(query, key, position, mask)
        neuron = _memory(written, value, causal)
        astro = torch.zeros_like(neuron) if position is None else _memory(keys - written, value, causal)
        return Parts(read, normaliser(read, written, alpha, causal), neuron, astro, sigma, outer)


def _memory(keys: torch.Tensor, value: torch.Tensor, causal: bool) -> torch.Tensor:
    if not causal:
        return (keys.transpose(-2, -1) @ value)[:, :, None]
    return (keys[..., None] * value[..., None, :]).cumsum(2)


def saturated(memory: torch.Tensor, within: float = 0.01) -> torch.Tensor:
    """The share of entries of which sigma is within a distance of 0 or 1: there it hardly has a gradient.

    Args:
        memory: What sigma is applied to, any shape.
        within: The distance, above 0 and below 0.5.

    Returns:
        A number from 0 to 1.

    Example:
        >>> saturated(torch.tensor([-5.0, 0.0, 4.0, 5.0]))
        tensor(0.5000)
    """
    return (memory.abs() > math.log(1 / within - 1)).float().mean()


def token_mean(x: torch.Tensor, mask: torch.Tensor | None = None, causal: bool = False) -> torch.Tensor:
    """Every token as the mean of the tokens of its sample; in the causal form of the tokens up to it.

    Args:
        x: ``(B, n, d)``.
        mask: Bool ``(B, n)``, False for padding, which is not averaged.
        causal: Whether a token sees only tokens up to it.

    Returns:
        ``(B, n, d)``.

    Example:
        >>> token_mean(torch.tensor([[[1.0], [3.0]]])).flatten().tolist()
        [2.0, 2.0]
    """
    kept = x.new_ones(x.shape[:2]) if mask is None else mask.to(x)
    kept = kept[..., None]
    if causal:
        return (x * kept).cumsum(1) / kept.cumsum(1).clamp_min(1)
    return ((x * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True).clamp_min(1)).expand_as(x)
