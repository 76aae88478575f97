"""What several files of tests compare with a reference, and how; a model that sees one corner."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from captum_astro import (
    ATTCAT,
    AttentionGradCAM,
    AttentionRollout,
    RawAttention,
    TransformerAttribution,
    TransformerMM,
    VTranM,
)

# methods that carry a row through the layers
ROWS = (VTranM, RawAttention, AttentionRollout, TransformerMM, ATTCAT, AttentionGradCAM, TransformerAttribution)


class Corner(nn.Module):
    """A model that sees only the pixels of the lower left corner."""

    def __init__(self, model: nn.Module, rows: int, columns: int) -> None:
        super().__init__()
        self.inner, self.rows, self.columns = model, rows, columns

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros_like(x[:1, :1])
        mask[..., -self.rows :, : self.columns] = 1
        return self.inner(x * mask)


def tokens(method: Any, model: nn.Module, x: torch.Tensor, target: Any, **options: Any) -> torch.Tensor:
    """The relevance of the tokens of the first image, ``(n,)``."""
    found: torch.Tensor = method(model).attribute(x, target=target, attribute_to="tokens", **options)[0]
    return found


def assert_close(got: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-9) -> None:
    """Assert that two maps have one shape and differ by no more than a part of the largest value, which is not 0."""
    assert got.shape == expected.shape
    assert expected.abs().max() > 0
    assert (got - expected).abs().max() <= tolerance * expected.abs().max()
