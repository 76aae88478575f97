"""Propagation rules of astromorphic attention, on its effective attention ``A``: ``output = A V + constant``.

These are the rules of softmax attention (`captum_astro.functional.relevance_rules`, `gradient_rules`), with the secant
of sigma, the normaliser and the position keys held constant. All are linear in the number of tokens, because ``A`` is
never formed.
"""

from __future__ import annotations

from typing import Any

import torch

from captum_astro.functional.astromorphic import astromorphic_attention
from captum_astro.functional.astromorphic_effective import EffectiveAttention, effective_attention, memory_read
from captum_astro.functional.astromorphic_features import feature_map
from captum_astro.functional.attention import widen
from captum_astro.functional.gradient_rules import ScaledGradient
from captum_astro.functional.operations import Recorded, register_attention
from captum_astro.functional.relevance_rules import divided


class ConstantAttention(torch.autograd.Function):
    """The AH rule of Conservative LRP: the effective attention is constant, so gradients reach only the values."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, output: torch.Tensor, attention: EffectiveAttention) -> torch.Tensor:
        """``output`` is the output of the operation."""
        ctx.attention = attention
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *gradient: Any) -> Any:
        """``sum_i A_ij^(d) g_id``."""
        return ctx.attention.pull(widen(gradient[0])).to(gradient[0].dtype), None, None


def shared_gradients(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *given: Any, **options: Any) -> Any:
    """AttnLRP: half of the relevance to the values, a quarter each to queries and keys, otherwise exact gradients."""
    return astromorphic_attention(
        ScaledGradient.apply(query, 0.25),
        ScaledGradient.apply(key, 0.25),
        ScaledGradient.apply(value, 0.5),
        *given,
        **options,
    )


class AstromorphicZ(torch.autograd.Function):
    """Deep Taylor: half to the values, a quarter each to queries and keys, in proportion to their part of ``A V``.

    ``R_V = V A^T (R / O) / 2`` and, with ``A_ij = sum_u q_iu t_ud k_ju``, each of the two features in proportion to its
    part of A. The constant and the position keys keep their part of the output: with sigma or positions, relevance is
    lost.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        output: torch.Tensor,
        attention: EffectiveAttention,
    ) -> torch.Tensor:
        """``output`` is the output of the operation."""
        ctx.save_for_backward(key, value, output)
        ctx.attention = attention
        return output.clone()

    @staticmethod
    def backward(ctx: Any, *relevance: Any) -> Any:
        """Relevance of query, key and value."""
        key, value, output = ctx.saved_tensors
        attention: EffectiveAttention = ctx.attention
        share = widen(divided(relevance[0], output))
        value, own = widen(value), feature_map(key)  # the keys' own part; the positions' part is dropped
        of_query, of_key, of_value = torch.empty_like(attention.read), torch.empty_like(own), torch.empty_like(value)
        for part, gathered, written in attention.walk(share):
            across = gathered.transpose(-2, -1)
            of_value[:, :, part] = value[:, :, part] * memory_read(across, attention.keys[:, :, part]) / 2
            of_query[:, :, part] = attention.read[:, :, part] * memory_read(written, share[:, :, part]) / 4
            of_key[:, :, part] = own[:, :, part] * memory_read(gathered, value[:, :, part]) / 4
        return *(x.to(relevance[0].dtype) for x in (of_query, of_key, of_value)), None, None


@register_attention(astromorphic_attention)
class AstromorphicOperation:
    """Astromorphic attention, recorded as its effective attention."""

    def recorded(self, *args: Any, chunk: int | None = None, **kwargs: Any) -> Recorded:
        """With a sigma, one map per value channel, and a constant."""
        attention = effective_attention(*_detached(args), **kwargs)
        channels = attention.value.shape[3]
        constant = attention.constant.repeat_interleave(channels, 1) if attention.per_channel else None
        return Recorded(attention, attention.values, constant)

    def relevance(self, *args: Any, chunk: int | None = None, **kwargs: Any) -> torch.Tensor:
        """Half to the values, a quarter each to queries and keys."""
        given = _detached(args)
        attention, output = effective_attention(*given, **kwargs), astromorphic_attention(*given, **kwargs)
        result: torch.Tensor = AstromorphicZ.apply(*args[:3], output, attention)
        return result

    def constant_weights(self, *args: Any, chunk: int | None = None, **kwargs: Any) -> torch.Tensor:
        """The effective attention is constant."""
        given = _detached(args)
        attention, output = effective_attention(*given, **kwargs), astromorphic_attention(*given, **kwargs)
        result: torch.Tensor = ConstantAttention.apply(args[2], output, attention)
        return result

    def shared_gradients(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The uniform rule twice; sigma and the features keep their gradients."""
        result: torch.Tensor = shared_gradients(*args, **kwargs)
        return result


def _detached(args: tuple[Any, ...]) -> list[Any]:
    return [x.detach() if isinstance(x, torch.Tensor) else x for x in args]
