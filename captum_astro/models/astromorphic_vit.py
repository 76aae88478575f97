"""Vision Transformers built from astromorphic blocks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from timm.layers import PatchEmbed, to_2tuple
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from captum_astro.functional.astromorphic import Nonlinearity
from captum_astro.models.astromorphic import AstromorphicBlock, AttentionKind

ImageSize = int | tuple[int, int]


class ConvolutionalPatchEmbed(PatchEmbed):
    """Patches of a feature map: a 3x3 convolution at full resolution before patching, as in CoAtNet.

    Args:
        stem_width: Channels of the feature map.
        in_chans: Channels of the image.
        options: Options of timm's ``PatchEmbed``.

    Example:
        >>> embed = ConvolutionalPatchEmbed(stem_width=16, img_size=32, patch_size=2, embed_dim=24)
        >>> embed(torch.randn(1, 3, 32, 32)).shape
        torch.Size([1, 256, 24])
    """

    def __init__(self, *, stem_width: int, in_chans: int = 3, **options: Any) -> None:
        super().__init__(in_chans=stem_width, **options)
        at: dict[str, Any] = {name: options.get(name) for name in ("device", "dtype")}
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, stem_width, 3, padding=1, bias=False, **at), nn.BatchNorm2d(stem_width, **at), nn.GELU()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, C, H, W)`` to ``(B, n, embed_dim)``."""
        tokens: torch.Tensor = super().forward(self.stem(x))
        return tokens


class AstromorphicVisionTransformer(VisionTransformer):
    """timm's Vision Transformer with astromorphic blocks: post-norm, without norms outside them.

    Source: arXiv 2312.10925; see `captum_astro.functional.astromorphic` for the equations. The interface is that of
    timm's `VisionTransformer`. The image size is fixed, because ``M`` has a learnt key for each position of the
    sequence.

    Args:
        img_size: Height and width of the image in pixels.
        patch_size: Size of a patch, in pixels.
        in_chans: Channels of the image.
        num_classes: Outputs; 0 for features.
        global_pool: ``"token"``, ``"avg"``, or another of timm's.
        embed_dim: Width.
        depth: Number of blocks.
        num_heads: Divides ``embed_dim``.
        mlp_ratio: Hidden width of the feed-forward layers over ``embed_dim``.
        class_token: Whether there is one, before the patches.
        pos_embed: ``"learn"`` adds a learnt embedding to each token, ``"none"`` leaves positions to the astrocytes.
        stem_width: Channels of a 3x3 convolution before patching; 0 for none.
        final_activation: Whether to apply a GELU between the blocks and the pooling: the paper's "extra non-linearity".
        drop_rate: Dropout before the classifier.
        pos_drop_rate: Dropout after the embedding.
        proj_drop_rate: Dropout of each residual sum before its norm.
        drop_path_rate: Stochastic depth of the last block's branches, rising to it from 0.
        qkv_bias: Biases of queries, keys and values.
        attention: ``"astromorphic"`` or ``"softmax"``, for comparison.
        hidden_dim: Hidden units per head.
        alpha: The exponent of the calcium response.
        scale: s.
        nonlinearity: Where sigma is applied.
        relative_position: Whether astrocytes write.
        position_scale: The reach of ``P``, in tokens.
        output_projection: A linear map after the heads.
        device: Device of the parameters.
        dtype: Dtype of the parameters.

    Raises:
        ValueError: If an option is out of range.

    Example:
        >>> model = AstromorphicVisionTransformer(img_size=16, patch_size=4, embed_dim=32, depth=2, num_heads=4)
        >>> model(torch.randn(2, 3, 16, 16)).shape
        torch.Size([2, 1000])
    """

    def __init__(
        self,
        img_size: ImageSize = 224,
        patch_size: ImageSize = 16,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: Literal["", "avg", "avgmax", "max", "token", "map"] = "token",
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        *,
        class_token: bool = True,
        pos_embed: Literal["learn", "none"] = "learn",
        stem_width: int = 0,
        final_activation: bool = False,
        drop_rate: float = 0.0,
        pos_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        qkv_bias: bool = False,
        attention: AttentionKind = "astromorphic",
        hidden_dim: int | None = None,
        alpha: float = 0.25,
        scale: float | None = None,
        nonlinearity: Nonlinearity = "inside",
        relative_position: bool = True,
        position_scale: float | None = None,
        output_projection: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        height, width = (size // patch for size, patch in zip(to_2tuple(img_size), to_2tuple(patch_size), strict=True))
        block = _block(
            num_tokens=height * width + class_token,
            attention=attention,
            hidden_dim=hidden_dim,
            alpha=alpha,
            scale=scale,
            nonlinearity=nonlinearity,
            relative_position=relative_position,
            position_scale=position_scale,
            output_projection=output_projection,
        )
        super().__init__(
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_chans,
            num_classes=num_classes,
            global_pool=global_pool,
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            class_token=class_token,
            pos_embed=pos_embed,
            final_norm=False,
            drop_rate=drop_rate,
            pos_drop_rate=pos_drop_rate,
            proj_drop_rate=proj_drop_rate,
            drop_path_rate=drop_path_rate,
            embed_layer=partial(ConvolutionalPatchEmbed, stem_width=stem_width) if stem_width else PatchEmbed,
            block_fn=block,
            device=device,
            dtype=dtype,
        )
        if final_activation:
            # the blocks end with a norm, so timm's final norm is not needed
            self.norm = nn.GELU()

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Class token, position embedding, and the position parameters of the astrocytes."""
        positions = {name for name, _ in self.named_parameters() if name.endswith("attn.positions")}
        return {"pos_embed", "cls_token"} | positions

    def set_input_size(self, img_size: ImageSize | None = None, patch_size: ImageSize | None = None) -> None:
        """Reject another size: ``M`` has a column for each token of the current one.

        Raises:
            ValueError: If a size differs from the current one.
        """
        embed = self.patch_embed
        for name, wanted, present in (
            ("img_size", img_size, embed.img_size),
            ("patch_size", patch_size, embed.patch_size),
        ):
            if wanted is not None and tuple(to_2tuple(wanted)) != tuple(present):
                raise ValueError(
                    f"{name} is {tuple(present)} and cannot become {wanted}: the attention has learnt a key for each "
                    f"position. Create the model with {name}={wanted!r}."
                )


def _block(**options: Any) -> Callable[..., AstromorphicBlock]:
    """A block factory with the arguments that timm's model passes to its own blocks."""

    def make(
        *, proj_drop: float, qk_norm: bool, scale_attn_norm: bool, scale_mlp_norm: bool, proj_bias: bool,
        init_values: float | None, attn_drop: float, mlp_layer: Any, attn_layer: Any, depth: int, **given: Any,
    ) -> AstromorphicBlock:  # fmt: skip
        return AstromorphicBlock(drop=proj_drop, **given, **options)

    return make
