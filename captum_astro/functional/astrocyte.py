"""Astrocytes on a linear layer: activity counters that multiply its weights.

Source: "Enhancing Vision Transformer Explainability Using Artificial Astrocytes" (ViTA, arXiv 2505.21513), Eq. 4 to 9.
Its full text was not available: the counter is that of the earlier neuron-glia networks (Porto-Pazos et al., PLoS ONE
6(4):e19109, 2011; Alvarellos-Gonzalez et al., Comput Math Methods Med 2012:476324, Sec. 3.5). With ``x_c`` the
monitored token, for every image and every input neuron i, and for t = 1 .. k::

    u_i = +1 if x_c,i > phi else -1          A_i(t) = clip(A_i(t-1) + u_i, -tau, tau),  A_i(0) = 0
    m_i(t) = alpha if A_i(t) >= tau, beta if A_i(t) <= -tau, else 1        M(t) = M(t-1) diag(m(t)),  M(0) = I
    y(t) = W M(t) x + b for every token      output: y(k), each token rescaled to W x + b

Because x is the same at every step, the counter runs straight to one limit, and ``M_ii(k)`` is a power of alpha or
beta: no iteration is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Literal, get_args

import torch
from torch.overrides import handle_torch_function, has_torch_function

from captum_astro.functional.attention import widen
from captum_astro.functional.operations import register_rules
from captum_astro.functional.relevance_rules import Unchanged

_LARGEST = 30  # exponent of ten, within float32 range
_MOST_STEPS = 1000
Counter = Literal["saturating", "resetting"]
Rescale = Literal["length", "moments", "none"]


@dataclass(frozen=True)
class Modulation:
    """How astrocytes modulate one linear layer. The defaults are the published best setting for Grad-CAM and SSIM.

    Attributes:
        k: Steps, from 0 to 1000. Published: 4, 6, 8.
        tau: The count at which an astrocyte acts, at least 1. The earlier networks used 2 and 3.
        phi: An input neuron is active if the monitored token's value is above this. Published: -0.5.
        alpha: The factor for an active neuron's weights at each step, at least 1. Published: 1.5.
        beta: The factor for an inactive neuron's weights, from 0 to 1. Published: 0.05, 0.005.
        rescale: The form of Eq. 9, of which only "to match scale" is known: each token's output is rescaled to the
            ``"length"`` of the plain output (the default), or to the mean and standard deviation of its channels
            (``"moments"``), or left unchanged (``"none"``).
        counter: What a counter does at its limit: it stays there and acts at every further step (``"saturating"``, the
            2011 rule, the default), or restarts at the next step (``"resetting"``, Eq. 7 and 10 of the 2012 paper).
            Which one ViTA uses is not known.
        feedback: Whether the activity of a step is read from the modulated input ``M(t-1) x_c`` instead of ``x_c``. The
            first layer of the earlier networks sees a constant pattern, so it is off by default.

    Raises:
        ValueError: If a value is out of range.

    Example:
        >>> Modulation(k=6, tau=3).applications
        4
    """

    k: int = 6
    tau: int = 3
    phi: float = -0.5
    alpha: float = 1.5
    beta: float = 0.05
    rescale: Rescale = "length"
    counter: Counter = "saturating"
    feedback: bool = False

    def __post_init__(self) -> None:
        for name, lowest in (("k", 0), ("tau", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral) or value < lowest:
                raise ValueError(f"{name} must be a whole number of at least {lowest}, not {value!r}.")
        if self.k > _MOST_STEPS:
            raise ValueError(f"k must be at most {_MOST_STEPS}, not {self.k!r}.")
        if not isinstance(self.feedback, bool):
            raise ValueError(f"feedback must be true or false, not {self.feedback!r}.")
        for name in ("phi", "alpha", "beta"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real) or math.isnan(value):
                raise ValueError(f"{name} is not a number: {value!r}.")
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta must be from 0 to 1, not {self.beta!r}.")
        if not (self.alpha >= 1 and self.applications * math.log10(self.alpha) <= _LARGEST):
            times = self.applications
            raise ValueError(f"alpha must be at least 1, its {times}th power at most 1e{_LARGEST}; not {self.alpha!r}.")
        for name, known in (("rescale", get_args(Rescale)), ("counter", get_args(Counter))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}.")

    @property
    def applications(self) -> int:
        """How often an astrocyte acts within the k steps, if its neuron stays active or inactive."""
        return max(0, self.k - self.tau + 1) if self.counter == "saturating" else self.k // self.tau

    @property
    def is_identity(self) -> bool:
        """Whether the layer is left unchanged, whatever its input."""
        return self.applications == 0 or (self.alpha == 1 and self.beta == 1)


def modulation_factors(watched: torch.Tensor, modulation: Modulation) -> torch.Tensor:
    """The diagonal of ``M(k)``: the factor of each input neuron. A constant in the backward pass.

    Args:
        watched: ``x_c``, ``(B, d)``.
        modulation: The rule.

    Returns:
        ``(B, d)``, of ``watched``'s dtype.
    """
    watched = watched.detach()
    if modulation.feedback:
        return _stepwise(watched, modulation)
    excited, inhibited = (
        # multiplied step by step, so that it equals the counters' product, in float64 bit for bit
        torch.full_like(watched, math.prod([factor] * modulation.applications))
        for factor in (modulation.alpha, modulation.beta)
    )
    return torch.where(watched > modulation.phi, excited, inhibited)


def _stepwise(watched: torch.Tensor, modulation: Modulation) -> torch.Tensor:
    """With feedback a neuron may change sides, so the counters are iterated."""
    factors, count = torch.ones_like(watched), torch.zeros_like(watched)
    tau = modulation.tau
    for _ in range(modulation.k):
        if modulation.counter == "resetting":
            count = count.masked_fill(count.abs() >= tau, 0)
        active = factors * watched > modulation.phi
        count = (count + 2 * active.to(count) - 1).clamp(-tau, tau)
        factors = torch.where(count >= tau, factors * modulation.alpha, factors)
        factors = torch.where(count <= -tau, factors * modulation.beta, factors)
    return factors


def astrocytic_linear(
    x: torch.Tensor,
    plain: torch.Tensor,
    linear: Callable[[torch.Tensor], torch.Tensor],
    factors: torch.Tensor,
    rescale: Rescale = "length",
) -> torch.Tensor:
    """``W M x + b``, each token rescaled to the scale of ``W x + b``.

    Args:
        x: ``(B, n, d)``.
        plain: ``W x + b``, ``(B, n, d_out)``.
        linear: ``x -> W x + b``.
        factors: The diagonal of ``M``, ``(B, d)``.
        rescale: See `Modulation`.

    Returns:
        ``(B, n, d_out)``.
    """
    modulated = linear(x * factors[:, None])
    return modulated if rescale == "none" else rescaled(modulated, plain, rescale)


def rescaled(modulated: torch.Tensor, plain: torch.Tensor, rescale: Rescale) -> torch.Tensor:
    """Each token's vector with the length, or the mean and standard deviation, of another.

    Function modes see it as one operation: propagation rules hold its factor constant, as they do for norms.

    Args:
        modulated: ``(..., d)``.
        plain: The same shape.
        rescale: ``"length"`` or ``"moments"``.

    Returns:
        ``(..., d)``; 0, or the mean, for a vector with zero length, or zero deviation.
    """
    if has_torch_function((modulated, plain)):
        result: torch.Tensor = handle_torch_function(rescaled, (modulated, plain), modulated, plain, rescale)
        return result
    scale, shift = scale_and_shift(modulated, plain, rescale)
    return modulated * scale[..., None] if shift is None else modulated * scale[..., None] + shift[..., None]


def scale_and_shift(
    modulated: torch.Tensor, plain: torch.Tensor, rescale: Rescale
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The factor and the offset that `rescaled` applies to each vector: ``(...)`` each; the offset may be None."""
    dtype, plain, modulated = plain.dtype, widen(plain), widen(modulated)
    if rescale == "length":
        return _ratio(plain, modulated).to(dtype), None
    wanted, found = plain.mean(-1), modulated.mean(-1)
    scale = _ratio(plain - wanted[..., None], modulated - found[..., None])
    return scale.to(dtype), (wanted - scale * found).to(dtype)


def _ratio(numerator: torch.Tensor, denominator: torch.Tensor) -> torch.Tensor:
    """Ratio of two lengths; 0 if the second is 0. Inputs are scaled first, as squares may overflow."""
    sizes = [x.detach().abs().amax(-1, keepdim=True) for x in (numerator, denominator)]
    safe = [torch.where(size > 0, size, 1.0) for size in sizes]
    lengths = [(x / size).norm(dim=-1) for x, size in zip((numerator, denominator), safe, strict=True)]
    there = lengths[1] > 0
    quotient = lengths[0] / torch.where(there, lengths[1], 1.0) * (safe[0] / safe[1])[..., 0]
    return torch.where(there, quotient, 0.0)


@register_rules(rescaled)
class RescaledRules:
    """The rescaling is a constant factor, as the standard deviation of a norm is."""

    def relevance(self, modulated: torch.Tensor, plain: torch.Tensor, rescale: Rescale) -> torch.Tensor:
        """Relevance is passed on unchanged."""
        result: torch.Tensor = Unchanged.apply(modulated, rescaled(modulated.detach(), plain.detach(), rescale))
        return result

    def gradient(self, modulated: torch.Tensor, plain: torch.Tensor, rescale: Rescale) -> torch.Tensor:
        """The LN rule."""
        scale, shift = scale_and_shift(modulated.detach(), plain.detach(), rescale)
        return modulated * scale[..., None] + (0 if shift is None else shift[..., None])
