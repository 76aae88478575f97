"""Which of the weights in a checkpoint: training saves several, under names of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from captum_astro.models.checkpoint import Tensors
from captum_astro.models.errors import ModelError

_AVERAGED = {"ema", "teacher", "averaged"}
_RAW = {"state_dict", "model", "model_state_dict", "module", "net", "network", "student", "weights", "params"}
_DEPTH = 16  # of parts in parts


def weights_in(file: Path, content: Mapping[str, Any], use_ema: bool, say: Callable[[str], None]) -> Tensors:
    """The weights in a checkpoint.

    Args:
        file: Where it was read, for messages.
        content: Names and tensors; or parts that hold these, such as ``state_dict`` and ``state_dict_ema``, beside an
            optimiser, an epoch, ...
        use_ema: Whether averaged weights (EMA, or a teacher) are preferred to the raw ones.
        say: Receives the choice, if there was one.

    Raises:
        ModelError: If it holds no weights, several that nothing distinguishes, or not those asked for.

    Example:
        >>> content = {"epoch": 9, "model": {"bias": torch.zeros(1)}, "model_ema": {"bias": torch.ones(1)}}
        >>> weights_in(Path("a.pt"), content, use_ema=True, say=print)
        a.pt has raw and averaged weights: model_ema is loaded; use_ema=False loads model.
        {'bias': tensor([1.])}
    """
    for _ in range(_DEPTH):
        parts = [key for key, value in content.items() if isinstance(key, str) and _holds_tensors(value)]
        known = [key for key in parts if key.lower() in _RAW or is_averaged(key)]
        tensors = {key: value for key, value in content.items() if isinstance(key, str) and _is_tensor(value)}
        if tensors and not known:
            return tensors
        if not parts:
            raise ModelError(f"{file} holds no weights: give a file that a model's state_dict was saved to.")
        content = content[chosen(file, known or parts, use_ema, say)]
    raise ModelError(f"{file} has parts in parts, more than {_DEPTH} deep: save the weights alone.")


def chosen(file: Path, names: Iterable[str], use_ema: bool, say: Callable[[str], None]) -> str:
    """One of several names of weights, the raw or the averaged ones.

    Raises:
        ModelError: If several remain, or the raw weights were asked for and are not there.
    """
    averaged = [name for name in names if is_averaged(name)]
    raw = [name for name in names if not is_averaged(name)]
    left, other = (averaged, raw) if use_ema and averaged else (raw, averaged)
    if not left:
        raise ModelError(f"{file} has averaged weights only ({_listed(averaged)}): use_ema=False cannot be met.")
    if len(left) > 1:
        raise ModelError(f"{file} holds several weights ({_listed(left)}): save those you want in a file of their own.")
    if other:
        say(
            f"{file} has raw and averaged weights: {_listed(left)} is loaded; use_ema={not use_ema} loads "
            f"{_listed(other)}."
        )
    return left[0]


def is_averaged(name: str) -> bool:
    """Whether a name is that of averaged weights, such as ``state_dict_ema`` or ``teacher.backbone``."""
    return not _AVERAGED.isdisjoint(re.split(r"[._-]", name.lower()))


def _holds_tensors(value: object) -> bool:
    """Whether there are tensors in a mapping, at any depth; each part is entered once, as it may contain itself."""
    left, seen = [value] if isinstance(value, Mapping) else [], set[int]()
    while left:
        one = left.pop()
        if _is_tensor(one):
            return True
        if isinstance(one, Mapping) and id(one) not in seen:
            seen.add(id(one))
            left += [inner for key, inner in one.items() if isinstance(key, str)]
    return False


def _is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor)


def _listed(names: list[str]) -> str:
    return ", ".join(name or "the unprefixed" for name in names)
