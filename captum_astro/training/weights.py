"""Weights as safetensors."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_model, save_file
from torch import nn

from captum_astro.storage import write_whole


def save_weights(model: nn.Module, file: Path, *, half: bool = False) -> None:
    """The weights as safetensors; those that are one tensor under several names, under the first alone.

    Args:
        model: The model.
        file: To write, whole or not at all.
        half: Floats in half precision.
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
    """Weights of `save_weights` into a model of the same make.

    Raises:
        ValueError: If they do not fit.
    """
    try:
        load_model(model, file)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{file} does not fit {type(model).__name__}: {str(error)[:300]}") from error
