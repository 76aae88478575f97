"""The text models of this package: token ids in, one row of tokens."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from captum_astro.layouts.base import Layout, register_layout
from captum_astro.layouts.blocks import describe_blocks
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Tap
from captum_astro.models.astromorphic_text import AstromorphicLanguageModel, AstromorphicTextClassifier


@register_layout(AstromorphicTextClassifier)
class TextClassifierLayout(Layout):
    """A model that averages its tokens, excluding padding."""

    reads_text = True
    num_prefix_tokens = 0

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._model: Any = cast(Any, model)
        self.stages = describe_blocks(self._model.blocks)
        self.final_stream = Tap(self._model.blocks[-1], "output")

    def grid(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def readout(self, tokens: int) -> torch.Tensor:
        return torch.full((tokens,), 1 / tokens, dtype=torch.float64)

    def lengths(self, token_ids: torch.Tensor) -> list[int]:
        mask = self._model.mask(token_ids)
        if mask is None:
            return super().lengths(token_ids)
        places = torch.arange(1, token_ids.shape[1] + 1, device=token_ids.device)
        return [max(1, int(length)) for length in (mask * places).amax(1)]

    def readout_of(self, inputs: torch.Tensor, tokens: int) -> torch.Tensor:
        mask = self._model.mask(inputs)
        if mask is None:
            return self.readout(tokens)
        weights: torch.Tensor = mask.double()
        return weights / weights.sum(1, keepdim=True).clamp_min(1)


@register_layout(AstromorphicLanguageModel)
class LanguageModelLayout(TextClassifierLayout):
    """A model with one output per position; the target is ``(position, token id)``."""

    per_position = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        if not all(block.attn.causal for block in self._model.blocks):
            raise UnsupportedModelError(
                "This language model was built with causal=False, so it sees the token that it predicts, and there is "
                "nothing to explain. Build it with causal=True."
            )

    def readout_of(self, inputs: torch.Tensor, tokens: int) -> torch.Tensor:
        return self.readout(tokens)
