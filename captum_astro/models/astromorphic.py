"""Astromorphic attention and its transformer block as modules."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import torch
from timm.layers import DropPath, Mlp
from timm.layers.attention import Attention
from torch import nn

from captum_astro.functional import astromorphic_rules  # noqa: F401  (registers what is known of the attention)
from captum_astro.functional.astromorphic import Nonlinearity, astromorphic_attention, check_options
from captum_astro.functional.astromorphic_positions import position_keys

AttentionKind = Literal["astromorphic", "softmax"]


class AstromorphicAttention(nn.Module):
    """Self-attention from neuron-astrocyte dynamics, linear in the number of tokens.

    For the equations, their numbers and their source (arXiv 2312.10925) see `captum_astro.functional.astromorphic`;
    every mechanism can be switched. Where the paper is ambiguous: the hidden units are divided among the heads like the
    values, and s is their number m per head (the paper prints ``s = 500 D``, with which attention is nearly inert at
    initialisation); positions are those in the sequence, which for images is row by row.

    ``M`` is learnt for ``num_tokens`` positions, as in the paper. A shorter sequence uses the first ones; a longer one
    is rejected, because a position that was never trained has no key.

    Args:
        dim: Width D of the tokens.
        num_heads: H; divides ``dim``.
        num_tokens: N, the longest sequence.
        hidden_dim: m, the hidden units per head; by default ``dim / num_heads``.
        alpha: The exponent of the calcium response; 0.25 in the paper, 1 is the linear form.
        scale: s; by default m.
        nonlinearity: Where sigma is applied: ``"inside"`` (Eq. 11), ``"outside"`` (Eq. 18), ``"none"`` (Algorithm 1).
        relative_position: Whether astrocytes write ``H_astro`` (Eq. 10, 12).
        position_scale: The distance, in tokens, over which ``P`` falls by e; by default the square root of
            ``num_tokens``, the length of a row of a square image.
        output_projection: A linear map after the heads; not in the paper.
        causal: Whether token t sees only tokens up to t. With a sigma this costs ``dim * hidden_dim`` exponentials per
            token, see `astromorphic_attention`.
        qkv_bias: Biases in the three projections; not in the paper.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Attributes:
        qkv: One linear map to queries, keys (``H m`` rows each) and values (``dim`` rows), in this order.
        positions: ``M``, ``(H, m, N)``, or None.
        proj: The output projection, or an identity.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> attention = AstromorphicAttention(dim=32, num_heads=4, num_tokens=50)
        >>> attention(torch.randn(2, 50, 32)).shape
        torch.Size([2, 50, 32])
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_tokens: int,
        *,
        hidden_dim: int | None = None,
        alpha: float = 0.25,
        scale: float | None = None,
        nonlinearity: Nonlinearity = "inside",
        relative_position: bool = True,
        position_scale: float | None = None,
        output_projection: bool = False,
        causal: bool = False,
        qkv_bias: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise ValueError(f"num_heads must divide dim, but {num_heads} does not divide {dim}.")
        if num_tokens < 1:
            raise ValueError(f"num_tokens must be at least 1, not {num_tokens!r}.")
        self.num_heads, self.num_tokens = num_heads, num_tokens
        self.head_dim = dim // num_heads
        self.hidden_dim = hidden_dim or self.head_dim
        self.scale = float(self.hidden_dim if scale is None else scale)
        self.alpha, self.nonlinearity, self.causal = alpha, nonlinearity, causal
        check_options(self.scale, alpha, nonlinearity)
        self.position_scale = math.sqrt(num_tokens) if position_scale is None else position_scale
        if not 0 < self.position_scale < math.inf:
            raise ValueError(f"position_scale must be above 0 and finite, not {position_scale!r}.")
        at: dict[str, Any] = {"device": device, "dtype": dtype}
        self._split = num_heads * self.hidden_dim, num_heads * self.hidden_dim, dim
        self.qkv = nn.Linear(dim, sum(self._split), bias=qkv_bias, **at)
        memory = torch.empty(num_heads, self.hidden_dim, num_tokens, **at)
        self.positions = nn.Parameter(memory) if relative_position else None
        self.proj = nn.Linear(dim, dim, **at) if output_projection else nn.Identity()
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Initialise with small values, because a random mixture is noise, but with distinct astrocyte keys."""
        nn.init.trunc_normal_(self.qkv.weight, std=0.02)
        if self.qkv.bias is not None:
            nn.init.zeros_(self.qkv.bias)
        if self.positions is not None:
            # a = M^T M P M^T, of third order in M and growing with N, is about 1
            nn.init.normal_(self.positions, std=self.num_tokens ** (-1 / 3))
        if isinstance(self.proj, nn.Linear):
            nn.init.xavier_uniform_(self.proj.weight)
            nn.init.zeros_(self.proj.bias)

    def position_keys(self, tokens: int) -> torch.Tensor | None:
        """The keys of the first ``tokens`` positions, ``(H, tokens, m)``, or None without relative positions.

        Raises:
            ValueError: If there are more tokens than positions.
        """
        if tokens > self.num_tokens:
            raise ValueError(
                f"The attention was built for at most {self.num_tokens} tokens but received {tokens}. "
                f"Build the model with a larger num_tokens (img_size, length)."
            )
        return None if self.positions is None else position_keys(self.positions, tokens, self.position_scale)

    def split_heads(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries and keys ``(B, H, n, m)`` and values ``(B, H, n, dim / H)`` of tokens ``(B, n, dim)``."""
        query, key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in self.qkv(x).split(self._split, -1)
        )
        return query, key, value

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Mix the tokens.

        Args:
            x: ``(B, n, dim)``.
            mask: Bool ``(B, n)``, False for padding, which other tokens then do not see.

        Returns:
            ``(B, n, dim)``.
        """
        mixed = astromorphic_attention(
            *self.split_heads(x),
            self.position_keys(x.shape[1]),
            scale=self.scale,
            alpha=self.alpha,
            nonlinearity=self.nonlinearity,
            causal=self.causal,
            mask=mask,
        )
        projected: torch.Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return projected

    def extra_repr(self) -> str:
        """The options, for printing."""
        return (
            f"heads={self.num_heads}, units={self.hidden_dim}, tokens={self.num_tokens}, alpha={self.alpha}, "
            f"scale={self.scale:g}, nonlinearity={self.nonlinearity}, causal={self.causal}"
        )


class SoftmaxAttention(Attention):
    """timm's softmax attention of the same width, with its output projection, under the same interface.

    Args:
        dim: Width of the tokens.
        num_heads: Divides ``dim``.
        causal: Whether token t sees only tokens up to t.
        options: Options of timm's class.

    Example:
        >>> SoftmaxAttention(32, 4, causal=True)(torch.randn(2, 50, 32)).shape
        torch.Size([2, 50, 32])
    """

    def __init__(self, dim: int, num_heads: int, *, causal: bool = False, **options: Any) -> None:
        super().__init__(dim, num_heads, **options)
        self.causal = causal

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Mix the tokens; see `AstromorphicAttention.forward`."""
        seen = None
        if mask is not None:
            # a text of pure padding sees itself: a softmax over nothing is NaN
            seen = (mask | ~mask.any(1, keepdim=True))[:, None, None, :]
            if self.causal:
                n = x.shape[1]
                # a query before the first token must not see nothing either
                seen = seen & seen.new_ones(n, n).tril() | torch.eye(n, dtype=torch.bool, device=x.device)
        mixed: torch.Tensor = super().forward(x, attn_mask=seen, is_causal=self.causal and seen is None)
        return mixed


class AstromorphicBlock(nn.Module):
    """One encoder or decoder layer: ``Y = LN(attention(X) + X)``, ``out = LN(FFN(Y) + Y)`` (Eq. 2, 3; Algorithm 1).

    Args:
        dim: Width of the tokens.
        num_heads: Divides ``dim``.
        num_tokens: The longest sequence.
        mlp_ratio: Hidden width of the feed-forward layer over ``dim``; the paper does not give it, 4 is our choice.
        drop: Dropout of each sum before its norm, as in the paper.
        drop_path: Stochastic depth of each branch.
        attention: ``"astromorphic"``, or ``"softmax"`` for the ordinary one, which uses only ``causal`` and
            ``qkv_bias`` of the attention's options and ignores the others.
        norm_layer: Builds a norm of a given width.
        act_layer: Activation of the feed-forward layer.
        device: Device of the parameters.
        dtype: Dtype of the parameters.
        options: Further arguments of `AstromorphicAttention`.

    Raises:
        ValueError: If ``attention`` is neither, or an option is out of range.

    Example:
        >>> block = AstromorphicBlock(32, 4, num_tokens=50, alpha=1.0)
        >>> block(torch.randn(2, 50, 32)).shape
        torch.Size([2, 50, 32])
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        num_tokens: int,
        *,
        mlp_ratio: float = 4.0,
        drop: float = 0.0,
        drop_path: float = 0.0,
        attention: AttentionKind = "astromorphic",
        norm_layer: type[nn.Module] = nn.LayerNorm,
        act_layer: type[nn.Module] = nn.GELU,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if attention not in get_args(AttentionKind):
            raise ValueError(f"attention must be one of {', '.join(get_args(AttentionKind))}, not {attention!r}.")
        at: dict[str, Any] = {"device": device, "dtype": dtype}
        if attention == "softmax":
            kept = {name: options[name] for name in ("causal", "qkv_bias") if name in options}
            self.attn: nn.Module = SoftmaxAttention(dim, num_heads, **kept, **at)
        else:
            self.attn = AstromorphicAttention(dim, num_heads, num_tokens, **options, **at)
        self.drop_path1 = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.drop1 = nn.Dropout(drop)
        self.norm1 = norm_layer(dim, **at)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act_layer=act_layer, **at)
        self.drop_path2 = DropPath(drop_path) if drop_path > 0 else nn.Identity()
        self.drop2 = nn.Dropout(drop)
        self.norm2 = norm_layer(dim, **at)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Initialise the feed-forward layer and a softmax attention; `AstromorphicAttention` initialises itself."""
        softmax = [self.attn.qkv, self.attn.proj] if isinstance(self.attn, SoftmaxAttention) else []
        for layer in (self.mlp.fc1, self.mlp.fc2, *softmax):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        if softmax:
            nn.init.trunc_normal_(softmax[0].weight, std=0.02)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """One layer.

        Args:
            x: ``(B, n, dim)``.
            mask: Bool ``(B, n)``, False for padding.

        Returns:
            ``(B, n, dim)``.
        """
        x = self.norm1(self.drop1(x + self.drop_path1(self.attn(x, mask))))
        out: torch.Tensor = self.norm2(self.drop2(x + self.drop_path2(self.mlp(x))))
        return out
