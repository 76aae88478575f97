"""The position embeddings of a pass under propagation rules, and the relevance that arrives at each place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from captum_astro.capture.constants import Constants
from captum_astro.capture.operations import ADD, MUL, RSUB, SUB, needs_grad
from captum_astro.functional.operations import ATTENTION
from captum_astro.layouts.errors import UnsupportedModelError

_ONLY = (
    "but relevance is assigned only to position embeddings that are added to the patches before the first block. "
    "Leave out positions=True."
)


class Positions(Constants):
    """What differs from place to place, and is added to features of the image.

    Args:
        name: The model's, for errors.
    """

    of_images = True

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._tokens: list[tuple[torch.Tensor, int]] = []

    def in_sums(self, func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The arguments of an operation, with a leaf for each image's positions."""
        added = [x for x in args[:2] if _differs(x)]
        moving = [x for x in args[:2] if needs_grad(x)]
        if func not in ADD | SUB | RSUB or not added or not moving:
            return args, kwargs
        if added[0].ndim > moving[0].ndim:
            raise self._refused(f"a constant of shape {tuple(added[0].shape)} is added to {tuple(moving[0].shape)}")
        leaf = self._leaf(added[0].to(moving[0]).expand_as(moving[0]))
        return tuple(leaf if x is added[0] else x for x in args), kwargs

    def in_layers(self, func: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The arguments of an operation, if it gives attention no positions of another kind.

        Raises:
            UnsupportedModelError: If it does: a rotation, or a bias of the attention scores.
        """
        if func in MUL and any(map(_differs, args[:2])):
            raise self._refused("features are multiplied by them, as rotary embeddings are")
        given = args[3] if func in ATTENTION and len(args) > 3 else kwargs.get("attn_mask")
        if func in ATTENTION and isinstance(given, torch.Tensor) and given.is_floating_point():
            raise self._refused("attention has some of its own, as a bias of its scores")
        return args, kwargs

    def entered(self, tokens: torch.Tensor) -> None:
        """Find out which token each place becomes: its gradient is larger by the number of that token.

        Raises:
            UnsupportedModelError: If a place becomes none, or a part of several.
        """
        numbers = torch.arange(1, tokens.shape[1] + 1, device=tokens.device).to(tokens)
        found = tokens @ torch.arange(1, tokens.shape[2] + 1, device=tokens.device).to(tokens).cos()  # of either sign
        for leaf in self.leaves:
            (once,) = torch.autograd.grad(found.sum(), leaf, retain_graph=True, allow_unused=True)
            if once is None:
                raise self._refused("some are added after its first block")
            (times,) = torch.autograd.grad((found * numbers).sum(), leaf, retain_graph=True)
            channels = -1 if leaf.shape[-1] == tokens.shape[2] else 1
            number = (once * times).sum(channels) / (once * once).sum(channels)
            if (times - number.round().unsqueeze(channels) * once).abs().max() > 1e-3 * times.abs().max():
                raise self._refused("they are mixed with those of other patches before its first block")
            self._tokens.append((number.round().long() - 1, channels))

    def by_token(self, arrived: Sequence[torch.Tensor], tokens: torch.Tensor) -> torch.Tensor:
        """The relevance of the positions of each token that enters the first block, ``(B, n)``.

        Args:
            arrived: The relevance at each leaf.
            tokens: The relevance of the tokens, ``(B, n)``.

        Raises:
            UnsupportedModelError: If the model adds no positions.
        """
        if not arrived:
            raise self._refused("none are added to its features")
        total = torch.zeros_like(tokens)
        for relevance, (token, channels) in zip(arrived, self._tokens, strict=True):
            images = len(total), -1  # of which the rows may be windows
            total.scatter_add_(1, token.reshape(images), relevance.sum(channels).to(total).reshape(images))
        return total

    def _refused(self, how: str) -> UnsupportedModelError:
        return UnsupportedModelError(f"The positions of {self._name}: {how}, {_ONLY}")


def _differs(x: Any) -> bool:
    """Whether this is a constant that is more than one value for each channel."""
    return isinstance(x, torch.Tensor) and not needs_grad(x) and sum(size > 1 for size in x.shape) > 1
