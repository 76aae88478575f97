"""Text models built from astromorphic blocks: a classifier and a causal language model, as plain modules."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import nn

from captum_astro.models.astromorphic import AstromorphicBlock


class AstromorphicTextEncoder(nn.Module):
    """Embedding, positions and blocks, shared by the classifier and the language model.

    Args:
        vocabulary: Number of token ids.
        dim: Width.
        num_heads: Divides ``dim``.
        depth: Number of blocks.
        length: The longest text, in tokens.
        padding_index: The id of padding, whose embedding is 0; None if there is no padding.
        pos_embed: ``"learn"`` adds a learnt embedding of each position, ``"none"`` leaves positions to the astrocytes.
        embed_scale: The factor of the embeddings; with it they start with a length of about the square root of ``dim``.
        drop_rate: Dropout after the embedding, and of each residual sum before its norm.
        device: Device of the parameters.
        dtype: Dtype of the parameters.
        options: Further arguments of `AstromorphicBlock`, and of its attention.

    Attributes:
        embed: The embedding, ``(B, n)`` to ``(B, n, dim)``, where attribution can start.
        blocks: The blocks. They are post-norm, so no norm follows.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> encoder = AstromorphicTextEncoder(vocabulary=100, dim=16, num_heads=2, depth=1, length=10)
        >>> encoder.forward_features(torch.tensor([[5, 17, 2]])).shape
        torch.Size([1, 3, 16])
    """

    def __init__(
        self,
        vocabulary: int,
        dim: int,
        num_heads: int,
        depth: int,
        length: int,
        *,
        padding_index: int | None = None,
        pos_embed: Literal["learn", "none"] = "learn",
        embed_scale: float = 1.0,
        drop_rate: float = 0.1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if pos_embed not in ("learn", "none"):
            raise ValueError(f"pos_embed must be one of learn, none, not {pos_embed!r}.")
        at: dict[str, Any] = {"device": device, "dtype": dtype}
        self.dim, self.length, self.padding_index, self.embed_scale = dim, length, padding_index, embed_scale
        self.embed = nn.Embedding(vocabulary, dim, padding_idx=padding_index, **at)
        self.pos_embed = nn.Parameter(torch.empty(1, length, dim, **at)) if pos_embed == "learn" else None
        self.pos_drop = nn.Dropout(drop_rate)
        self.blocks = nn.ModuleList(
            AstromorphicBlock(dim, num_heads, length, drop=drop_rate, **options, **at) for _ in range(depth)
        )
        self._init_embeddings()

    @torch.no_grad()
    def _init_embeddings(self) -> None:
        nn.init.normal_(self.embed.weight, std=1 / self.embed_scale)
        if self.padding_index is not None:
            self.embed.weight[self.padding_index] = 0
        if self.pos_embed is not None:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def mask(self, token_ids: torch.Tensor) -> torch.Tensor | None:
        """Bool ``(B, n)``, False for padding; None without a padding index."""
        return None if self.padding_index is None else token_ids != self.padding_index

    def forward_features(self, token_ids: torch.Tensor) -> torch.Tensor:
        """The last block's tokens.

        Args:
            token_ids: Long ``(B, n)``, n at most ``length``. Padding must be at the end: positions are counted from the
                first token.

        Returns:
            ``(B, n, dim)``; the vectors of padding are meaningless.

        Raises:
            ValueError: If the text is not ``(B, n)``, or too long.
        """
        if token_ids.ndim != 2:
            raise ValueError(f"Token ids must be (B, n), not {tuple(token_ids.shape)}.")
        tokens = token_ids.shape[1]
        if tokens > self.length:
            raise ValueError(f"The model reads at most {self.length} tokens but received {tokens}. Shorten the text.")
        x: torch.Tensor = self.embed(token_ids) * self.embed_scale
        if self.pos_embed is not None:
            x = x + self.pos_embed[:, :tokens]
        x = self.pos_drop(x)
        mask = self.mask(token_ids)
        for block in self.blocks:
            x = block(x, mask)
        return x

    def no_weight_decay(self) -> set[str]:
        """The position embedding, and the position parameters of the astrocytes: for `timm.optim`."""
        return {"pos_embed"} | {name for name, _ in self.named_parameters() if name.endswith("attn.positions")}


class AstromorphicTextClassifier(AstromorphicTextEncoder):
    """A text classifier, by default of the paper's size for IMDB.

    Source: arXiv 2312.10925; see `captum_astro.functional.astromorphic` for the equations. The tokens of the last
    block are averaged; the paper does not describe its pooling. Padding is neither written nor averaged.

    Args:
        vocabulary: Number of token ids.
        num_classes: Outputs.
        dim: Width.
        num_heads: Divides ``dim``.
        depth: Number of blocks.
        length: The longest text, in tokens.
        padding_index: The id of padding; None without.
        options: Further arguments of `AstromorphicTextEncoder`, `AstromorphicBlock` and `AstromorphicAttention`.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> model = AstromorphicTextClassifier(vocabulary=1000, num_classes=2).eval()
        >>> model(torch.tensor([[5, 17, 2, 0, 0]])).shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        vocabulary: int,
        num_classes: int,
        dim: int = 128,
        num_heads: int = 4,
        depth: int = 1,
        length: int = 400,
        padding_index: int | None = 0,
        **options: Any,
    ) -> None:
        super().__init__(vocabulary, dim, num_heads, depth, length, padding_index=padding_index, **options)
        at: dict[str, Any] = {name: options.get(name) for name in ("device", "dtype")}
        self.head = nn.Linear(dim, num_classes, **at)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward_head(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Logits ``(B, num_classes)`` of the last block's tokens ``(B, n, dim)``; pure padding averages to 0."""
        if mask is None:
            pooled = x.mean(1)
        else:
            weights = mask.to(x) / mask.sum(1, keepdim=True).clamp_min(1).to(x)
            pooled = (weights[:, :, None] * x).sum(1)
        logits: torch.Tensor = self.head(pooled)
        return logits

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Logits.

        Args:
            token_ids: Long ``(B, n)``.

        Returns:
            ``(B, num_classes)``.
        """
        return self.forward_head(self.forward_features(token_ids), self.mask(token_ids))


class AstromorphicLanguageModel(AstromorphicTextEncoder):
    """A language model, by default of the paper's size for WikiText-2.

    Source: arXiv 2312.10925; see `captum_astro.functional.astromorphic` for the equations. The paper sums over all
    tokens and does not say how its decoder is made causal; here memory and normaliser are prefix sums, so the logits at
    t depend only on the tokens up to t.

    Args:
        vocabulary: Number of token ids.
        dim: Width.
        num_heads: Divides ``dim``.
        depth: Number of blocks.
        length: The longest text, in tokens.
        tie_weights: Whether the output map shares the embedding's weight.
        causal: False sums over all tokens, as the paper prints it. The model then sees the tokens that it predicts, so
            its perplexity says nothing, and it is not explained.
        drop_rate: Dropout after the embedding, of the residual sums, and before the output.
        options: Further arguments of `AstromorphicTextEncoder`, `AstromorphicBlock` and `AstromorphicAttention`.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> model = AstromorphicLanguageModel(vocabulary=1000, dim=48, length=64).eval()
        >>> model(torch.tensor([[5, 17, 2, 9]])).shape
        torch.Size([1, 4, 1000])
    """

    def __init__(
        self,
        vocabulary: int,
        dim: int = 768,
        num_heads: int = 6,
        depth: int = 1,
        length: int = 512,
        *,
        tie_weights: bool = True,
        causal: bool = True,
        drop_rate: float = 0.1,
        **options: Any,
    ) -> None:
        super().__init__(
            vocabulary,
            dim,
            num_heads,
            depth,
            length,
            # with tied weights, an embedding of length 1 gives logits of a reasonable size
            embed_scale=math.sqrt(dim) if tie_weights else 1.0,
            drop_rate=drop_rate,
            causal=causal,
            **options,
        )
        at: dict[str, Any] = {name: options.get(name) for name in ("device", "dtype")}
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(dim, vocabulary, bias=False, **at)
        if tie_weights:
            self.head.weight = self.embed.weight
        else:
            nn.init.trunc_normal_(self.head.weight, std=0.02)

    def forward_head(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, n, vocabulary)`` of the last block's tokens ``(B, n, dim)``."""
        logits: torch.Tensor = self.head(self.head_drop(x))
        return logits

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Logits of the token that follows each token.

        Args:
            token_ids: Long ``(B, n)``.

        Returns:
            ``(B, n, vocabulary)``.
        """
        return self.forward_head(self.forward_features(token_ids))
