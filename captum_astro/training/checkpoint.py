"""The whole state of a run in one file: model, optimiser, and every random generator."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from captum_astro.models.checkpoint import read
from captum_astro.storage import write_whole


def save(file: Path, state: dict[str, Any]) -> None:
    """Save a state of tensors, numbers, texts, lists and dicts, and the generators of torch, NumPy and Python."""
    write_whole(file, lambda part: torch.save({**state, "random": random_state()}, part))


def load(file: Path) -> dict[str, Any]:
    """Load a state, with its tensors on the CPU, and restore the generators; code inside the file is never run.

    Args:
        file: A file written by `save`.

    Raises:
        ValueError: If it cannot be read.
        OSError: If there is no such file.
    """
    try:
        state = dict(read(file))
        set_random_state(state.pop("random"))
    except OSError:
        raise
    except Exception as error:  # torch's message would advise to trust the file
        raise ValueError(
            f"{file} cannot be read (damaged, or no checkpoint of this package). Delete it to begin again."
        ) from error
    return state


def same_form(one: Any, other: Any) -> bool:
    """Whether two states have the same names, kinds of values and shapes, so that one can take the other's place.

    Example:
        >>> same_form({"lr": 0.1, "betas": (0.9, 0.99)}, {"lr": 0.2, "betas": (0.8, 0.9)})
        True
        >>> same_form({"lr": 0.1}, {"lr": "0.1"}), same_form(torch.ones(2), torch.ones(3))
        (False, False)
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same_form(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same_form, one, other))
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return (one.shape, one.dtype, one.layout) == (other.shape, other.dtype, other.layout)
    return type(one) is type(other)


def seed_everything(seed: int) -> None:
    """Set the generators of torch (all devices), numpy and Python."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - layers of others draw from it
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """The generators' states as tensors and numbers."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": (str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restore what `random_state` returned; states of missing GPUs are ignored."""
    name, keys, *rest = state["numpy"]
    torch.set_rng_state(state["torch"])
    for index, one in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(one, index)
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate(state["python"])
