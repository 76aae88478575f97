"""A linear layer with astrocytes."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import nn

from captum_astro.functional.astrocyte import Modulation, astrocytic_linear, modulation_factors, scale_and_shift

Token = Literal["auto", "cls", "mean"]


class AstrocyticLinear(nn.Module):
    """A linear layer whose input channels are excited or inhibited depending on one token of the image.

    See `captum_astro.functional.astrocyte` for the equations and their source. Astrocytes keep no state between images
    or calls. The factors are constants in the backward pass; through everything else, including the rescaling,
    gradients are exact.

    Args:
        linear: The layer to modulate. Its weights are shared, not copied.
        modulation: The rule; the published setting by default.
        token: The monitored token: the first token of each image (``"cls"``), or the mean of its tokens (``"mean"``).

    Example:
        >>> import torch
        >>> layer = AstrocyticLinear(torch.nn.Linear(4, 6), Modulation(k=4, tau=2))
        >>> layer(torch.randn(2, 5, 4)).shape
        torch.Size([2, 5, 6])
    """

    def __init__(
        self, linear: nn.Linear, modulation: Modulation | None = None, token: Literal["cls", "mean"] = "cls"
    ) -> None:
        super().__init__()
        self.linear = linear
        self.modulation = Modulation() if modulation is None else modulation
        self.token = token

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens ``(B, n, d)`` to ``(B, n, d_out)``."""
        return modulate(x, self.linear(x), self.linear, self.modulation, self.token, len(x))

    def extra_repr(self) -> str:
        """The rule, for the module's representation."""
        return f"{self.modulation}, token={self.token!r}"


def modulate(
    x: torch.Tensor, plain: torch.Tensor, linear: Any, modulation: Modulation, token: str, images: int
) -> torch.Tensor:
    """The layer's output under astrocytes; the plain output itself if they have no effect.

    Args:
        x: Its input, ``(R, ..., d)``: the R rows are the windows of the images, image by image.
        plain: Its output.
        linear: The layer.
        modulation: The rule.
        token: ``"cls"`` or ``"mean"``.
        images: The number of images; R is a multiple of it.
    """
    if modulation.is_identity:
        return plain
    tokens = x.reshape(images, -1, x.shape[-1])
    factors = modulation_factors(watched_token(tokens, token), modulation)
    flat = plain.reshape(images, -1, plain.shape[-1])
    # call forward directly, to bypass the layer's hooks
    result = astrocytic_linear(tokens, flat, linear.forward, factors, modulation.rescale)
    return result.reshape(plain.shape)


def watched_token(tokens: torch.Tensor, token: str) -> torch.Tensor:
    """``x_c``: ``(B, d)`` from ``(B, n, d)``."""
    return tokens[:, 0] if token == "cls" else tokens.mean(1)


def measured(
    x: torch.Tensor, linear: nn.Linear, modulation: Modulation, token: str, images: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The effect of astrocytes on a layer: its factors ``(R, d)``, and each token's scale and shift ``(R, n)``.

    Args:
        x: Its input, ``(R, n, d)``: the R rows are the windows of the images, image by image.
        linear: The layer.
        modulation: The rule.
        token: ``"cls"`` or ``"mean"``.
        images: The number of images.
    """
    watched = watched_token(x.reshape(images, -1, x.shape[-1]), token)
    factors = modulation_factors(watched, modulation).repeat_interleave(len(x) // images, 0)
    if modulation.is_identity or modulation.rescale == "none":
        factors = torch.ones_like(factors) if modulation.is_identity else factors
        return factors, x.new_ones(x.shape[:2]), None
    plain, changed = linear.forward(x), linear.forward(x * factors[:, None])
    return factors, *scale_and_shift(changed, plain, modulation.rescale)
