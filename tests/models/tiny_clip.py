"""A tiny image-text model of open_clip with random weights, which open_clip knows by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

NAME = "open_clip:tiny"
_TOWER = {"image_size": 32, "patch_size": 8, "width": 24, "layers": 2, "head_width": 8}
_TEXT = {"context_length": 12, "width": 16, "heads": 2, "layers": 1}


def tiny_clip(folder: Path) -> nn.Module:
    """Register it, and save its weights as ``tiny.pt``."""
    open_clip = pytest.importorskip("open_clip", reason="the extra 'open_clip' is not installed")
    config = folder / "tiny.json"
    config.write_text(json.dumps({"embed_dim": 16, "vision_cfg": _TOWER, "text_cfg": _TEXT}))
    open_clip.add_model_config(config)
    model: nn.Module = open_clip.create_model("tiny").eval()
    torch.save(model.state_dict(), folder / "tiny.pt")
    return model
