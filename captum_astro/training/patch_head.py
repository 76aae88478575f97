"""An auxiliary head that classifies what each patch of an image shows, and the loss of both heads."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.models.pit import PoolingVisionTransformer
from torch import nn

from captum_astro.training.batches import Batch

BACKGROUND = 10  # the class of a patch without a part of a digit
_COVERED = 0.25  # the minimum fraction of a patch that a digit must fill


class WithPatchHead(nn.Module):
    """A transformer with an auxiliary head that classifies each token of its last grid.

    A Vision Transformer's grid is that of its patches; a PiT's is that of its last stage, whose tokens are pooled
    patches.

    Args:
        model: From timm, with 10 classes.
        bfloat16: Whether its forward pass is in bfloat16.
    """

    def __init__(self, model: Any, *, bfloat16: bool) -> None:
        super().__init__()
        self.model: Any = model
        self.patch_head = nn.Linear(model.num_features, BACKGROUND + 1)
        self.in_bfloat16 = bfloat16

    def no_weight_decay(self) -> set[str]:
        """The output of the model itself."""
        return {f"model.{name}" for name in self.model.no_weight_decay()}

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits ``(B, 10)``, and those of each position of the grid ``(B, h, w, 11)``."""
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.in_bfloat16):
            tokens, grid = self._features(images)
            logits, patches = self.model.forward_head(tokens), self.patch_head(grid)
        return logits.float(), patches.float()

    def _features(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the head reads, and the last grid ``(B, h, w, d)``."""
        if isinstance(self.model, PoolingVisionTransformer):
            class_token, grids = self.model.forward_intermediates(images, 1)
            return class_token, grids[0].permute(0, 2, 3, 1)
        tokens: torch.Tensor = self.model.forward_features(images)
        size: tuple[int, int] = self.model.patch_embed.grid_size
        return tokens, tokens[:, self.model.num_prefix_tokens :].reshape(len(tokens), *size, -1)


def patch_loss(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of both heads, and the accuracy of the first."""
    images, labels, masks = batch
    logits, patches = model(images)
    covered = F.adaptive_avg_pool2d(masks[:, None].float(), patches.shape[1:3])[:, 0] > _COVERED
    shown = torch.where(covered, labels[:, None, None], BACKGROUND)
    loss = F.cross_entropy(logits, labels) + F.cross_entropy(patches.permute(0, 3, 1, 2), shown)
    return loss, (logits.detach().argmax(1) == labels).float().mean()
