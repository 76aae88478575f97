"""Weights as safetensors."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_model, save_file
from torch import nn

from captum_astro.storage import write_whole
from captum_astro.wording import reason


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
        ValueError: If they do not match.
    """
    try:
        load_model(model, file)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{file} does not match {type(model).__name__}: {reason(error)}.") from error
