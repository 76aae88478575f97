"""Attention modules that hide what they do: as the operations and the layers that they consist of."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

from captum_astro.capture.operations import ADD, both_need_grad, needs_grad
from captum_astro.functional.relevance_rules import Unchanged

# Hugging Face's other ways to compute attention: a map in float32, and kernels that no mode sees
_UNFUSED = ("eager", "flash_attention_2", "flash_attention_3", "flex_attention")


class OpenedAttention(nn.MultiheadAttention):
    """PyTorch's attention, which is one operation to whoever looks on: products, an attention, a call of ``out_proj``.

    Only attention without masks is opened; any other call stays as it is.
    """

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Has the signature of `torch.nn.MultiheadAttention`."""
        masked = key_padding_mask is not None or attn_mask is not None or is_causal
        if masked or self.bias_k is not None or self.add_zero_attn or query.ndim != 3:
            rest: Any = key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
            return super().forward(query, key, value, *rest)
        given = (x if self.batch_first else x.transpose(0, 1) for x in (query, key, value))
        q, k, v = (
            F.linear(x, weight, bias).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for x, weight, bias in zip(given, self._weights(), self._biases(), strict=True)
        )
        dropout, weights = self.dropout if self.training else 0.0, None
        if need_weights:
            weights = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(-1)
            mixed = F.dropout(weights, dropout) @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
        output = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return output if self.batch_first else output.transpose(0, 1), weights

    def _weights(self) -> tuple[torch.Tensor, ...]:
        if self._qkv_same_embed_dim:
            return self.in_proj_weight.chunk(3)
        return self.q_proj_weight, self.k_proj_weight, self.v_proj_weight

    def _biases(self) -> tuple[torch.Tensor | None, ...]:
        return (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)


class _Opened(TorchFunctionMode):
    """Runs the hooks of linear layers whose weights are passed to a function.

    Args:
        layers: The layers; each is called where its weight and bias are used.
        fused: Biases of the scores take no relevance, as in fused attention.
    """

    def __init__(self, layers: list[nn.Linear], fused: bool) -> None:
        super().__init__()
        self._layers, self._fused = layers, fused

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and len(args) == 3 and not kwargs:
            for layer in self._layers:
                if args[1] is layer.weight and args[2] is layer.bias:
                    return layer(args[0])
        if self._fused and func in ADD and needs_grad(args[0]) and not both_need_grad(args):
            return Unchanged.apply(args[0], args[0].detach() + args[1])
        return func(*args, **(kwargs or {}))


def _with_layers(self: nn.Module, x: torch.Tensor) -> Any:
    layers = [layer for layer in self.children() if isinstance(layer, nn.Linear)]
    with _Opened(layers, fused=not isinstance(self, ShiftedWindowAttentionV2)):  # v2 is written out in timm too
        return type(self).forward(self, x)


def open_attention(module: nn.Module) -> None:
    """Open a private module, changed in place, if it is known to hide its attention or the calls of its layers.

    These are PyTorch's attention and that of torchvision's Swin. Hugging Face's is computed by PyTorch's fused one.

    Args:
        module: A module of a `Replica`.
    """
    config = vars(module).get("config")
    if getattr(config, "_attn_implementation", None) in _UNFUSED:
        vars(config)["_attn_implementation_internal"] = "sdpa"
    if type(module) is nn.MultiheadAttention:
        module.__class__ = OpenedAttention
    elif isinstance(module, ShiftedWindowAttention):  # passes its layers' weights to a function
        module.__dict__["forward"] = MethodType(_with_layers, module)
