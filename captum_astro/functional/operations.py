"""Handlers for individual functions: how the attention they compute is recorded, and how relevance is propagated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
import torch.nn.functional as F

from captum_astro.functional import gradient_rules, relevance_rules
from captum_astro.functional.attention import AttentionMap
from captum_astro.functional.fused_call import FusedCall


class Recorded(NamedTuple):
    """One call of an attention function, without a graph.

    Attributes:
        map: The attention.
        value: The values that it mixes, ``(B, H, n, d_v)``.
        constant: The part of the output besides the weighted values; None for nothing.
    """

    map: AttentionMap
    value: torch.Tensor
    constant: torch.Tensor | None = None


class AttentionOperation(Protocol):
    """Handler of one function that computes attention; every method has the signature of the function."""

    def recorded(self, *args: Any, **kwargs: Any) -> Recorded:
        """The attention of a call."""

    def relevance(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The output, with a backward pass that propagates relevance: deep Taylor's z+."""

    def constant_weights(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The output, with gradients to the values only: the AH rule of Conservative LRP."""

    def shared_gradients(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The output, with gradients split by the uniform rule of AttnLRP."""


class RuledOperation(Protocol):
    """How relevance is propagated through any other function; every method has the signature of the function."""

    def relevance(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The output, with a backward pass that propagates relevance: deep Taylor's z+."""

    def gradient(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The output, with gradients modified so that input times gradient is the relevance."""


OperationType = TypeVar("OperationType", bound=type[Any])
ATTENTION: dict[Callable[..., Any], AttentionOperation] = {}
RULED: dict[Callable[..., Any], RuledOperation] = {}


def register_attention(function: Callable[..., Any]) -> Callable[[OperationType], OperationType]:
    """Class decorator: register the handler of a function that computes attention.

    The function must dispatch through ``__torch_function__``, as those of torch do, so that its calls can be
    intercepted.

    Args:
        function: The function as models call it.
    """

    def register(operation: OperationType) -> OperationType:
        ATTENTION[function] = operation()
        return operation

    return register


def register_rules(function: Callable[..., Any]) -> Callable[[OperationType], OperationType]:
    """Class decorator: register how relevance is propagated through a function; see `register_attention`.

    Args:
        function: The function as models call it.
    """

    def register(operation: OperationType) -> OperationType:
        RULED[function] = operation()
        return operation

    return register


@register_attention(F.scaled_dot_product_attention)
class FusedAttention:
    """PyTorch's fused attention."""

    def recorded(self, *args: Any, **kwargs: Any) -> Recorded:
        """A softmax, stored as its inputs."""
        call = FusedCall.of(*args, **kwargs)
        return Recorded(call.map, call.value.detach())

    def relevance(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Products are split in halves, the softmax passes relevance on unchanged.

        Raises:
            ValueError: If dropout is active.
        """
        call = FusedCall.of(*args, **kwargs)
        if call.dropout:
            raise ValueError("Attention dropout is active, and its mask cannot be reproduced. Call model.eval().")
        if call.query.ndim == 3:  # heads are samples
            mask = call.bias if call.bias is None or call.bias.ndim < 3 else call.bias[:, None]
            alone = (x[:, None] for x in call[:3])
            return self.relevance(*alone, mask, is_causal=call.causal, scale=call.scale)[:, 0]
        if call.query.ndim > 4:  # windows in a dimension of their own are samples
            if call.bias is not None:
                raise ValueError("Attention on more than four dimensions has a mask or a bias.")
            folded = (x.flatten(0, -4) for x in call[:3])
            found: torch.Tensor = self.relevance(*folded, is_causal=call.causal, scale=call.scale)
            return found.reshape(*call.query.shape[:-3], *found.shape[1:])
        query, key, value = (x.detach() for x in (call.query, call.key, call.value))
        output = F.scaled_dot_product_attention(query, key, value, call.bias, is_causal=call.causal, scale=call.scale)
        result: torch.Tensor = relevance_rules.FusedAttention.apply(call.query, call.key, call.value, output, call.map)
        return result

    def constant_weights(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Attention weights are constants."""
        return gradient_rules.attention_with_constant_weights(*args, **kwargs)

    def shared_gradients(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Half to the values, a quarter each to queries and keys."""
        return gradient_rules.attention_with_shared_gradients(*args, **kwargs)
