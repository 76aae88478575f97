"""Weights as safetensors."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from captum_astro.models.checkpoint import read
from captum_astro.models.forms import Form, Target
from captum_astro.storage import write_whole


def save_weights(model: nn.Module, file: Path, *, half: bool = False) -> None:
    """Write the weights as safetensors; a tensor with several names is written under the first only.

    Args:
        model: The model.
        file: The file to write, atomically.
        half: Whether floats are written in half precision.
    """
    seen: set[int] = set()
    kept: dict[str, torch.Tensor] = {}
    for name, value in model.state_dict().items():
        if value.data_ptr() in seen and value.numel():
            continue
        seen.add(value.data_ptr())
        kept[name] = (value.half() if half and value.is_floating_point() else value).detach().cpu().contiguous()
    write_whole(file, lambda part: save_file(kept, part))


def load_weights(model: nn.Module, file: Path) -> None:
    """Load weights written by `save_weights` into a model of the same architecture.

    Raises:
        ValueError: If the file is missing or damaged, or the weights do not match.
    """
    tensors = dict(read(file))
    target, form = Target(model), Form("", tensors, tensors)
    if not target.accepts(form):
        raise ValueError(
            f"{file} does not match {type(model).__name__}: {target.differences(form)}. Train it again, or give "
            f"another folder."
        )
    model.load_state_dict(tensors, strict=False)  # a weight with several names is in the file under the first only
