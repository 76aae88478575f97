"""The forms in which weights may be meant for a model, and how each differs from what the model has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from captum_astro.models.checkpoint import Tensors
from captum_astro.models.huggingface import POOLER, renamed

_COUNTER = "num_batches_tracked"  # a batch norm's, which evaluation does not use; old files have none
_PREFIXES = 32  # that are tried
_SHOWN = 3  # names of each kind in a message
_WIDTH = 100  # letters of each


@dataclass(frozen=True)
class Form:
    """Weights that may be a model's.

    Attributes:
        prefix: What their names began with in the file.
        tensors: The weights, without the prefix.
        original: The same before a conversion.
        left_out: Names in the file that are not among them.
    """

    prefix: str
    tensors: Tensors
    original: Tensors
    left_out: Sequence[str] = ()

    def replaced(self, tensors: Tensors) -> Form:
        """The same after a conversion."""
        return replace(self, tensors=tensors)

    def holds(self, name: str) -> bool:
        """Whether a name in the file is that of one of these weights."""
        return name.startswith(self.prefix) and name.removeprefix(self.prefix) in self.original

    def resampled(self) -> list[str]:
        """Names of the tensors that a conversion gave another size."""
        kept = {key: value for key, value in self.original.items() if key in self.tensors}
        if "register_tokens" in self.original and "pos_embed" in kept:
            kept["pos_embed"] = kept["pos_embed"][:, 1:]  # DINOv2's class position becomes part of its token
        return [key for key, value in kept.items() if value.numel() != self.tensors[key].numel()]

    def patches_differ(self) -> bool:
        """Whether a conversion gave patches another size: then these are weights of another model."""
        return any("patch_embed" in key for key in self.resampled())


class Target:
    """What a model expects.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.own: Tensors = model.state_dict(keep_vars=True)
        self._computed = {key: buffer for key, buffer in model.named_buffers() if key not in self.own}

    def accepts(self, form: Form) -> bool:
        """Whether nothing is missing, not expected, or of another shape."""
        return not (self._missing(form) or self._unexpected(form) or self._misshapen(form))

    def matches(self, form: Form) -> int:
        """The number of names that the model knows."""
        return len(self.own.keys() & form.tensors.keys())

    def differences(self, form: Form) -> str:
        """All kinds of differences, each with the first few names."""
        shapes = [
            f"{key} {_described(form.tensors[key])} instead of {_described(self.own[key])}"
            for key in self._misshapen(form)
        ]
        kinds = {"missing": self._missing(form), "not expected": self._unexpected(form), "of another shape": shapes}
        found = "; ".join(f"{kind}: {_first(names)}" for kind, names in kinds.items() if names)
        prefix = f" (without the prefix {form.prefix!r} of the file)" if form.prefix else ""
        return found + prefix

    def _missing(self, form: Form) -> list[str]:
        given = {id(self.own[key]) for key in form.tensors if key in self.own}  # one weight may have several names
        return [key for key, value in self.own.items() if id(value) not in given and not key.endswith(_COUNTER)]

    def _unexpected(self, form: Form) -> list[str]:
        return [
            key
            for key, value in form.tensors.items()
            if key not in self.own and not key.endswith(_COUNTER) and not self._is_computed(key, value)
        ]

    def _misshapen(self, form: Form) -> list[str]:
        return [
            key for key, value in self.own.items() if key in form.tensors and _kind(value) != _kind(form.tensors[key])
        ]

    def _is_computed(self, key: str, value: torch.Tensor) -> bool:
        """Whether it is a buffer that the model computes itself, with the same values; old files have these."""
        own = self._computed.get(key)
        return own is not None and own.shape == value.shape and torch.allclose(own.double(), value.double())


def forms(tensors: Tensors, target: Target) -> list[Form]:
    """The weights without a prefix, and those under each prefix with which the model's names occur.

    Args:
        tensors: The weights of a file; if they have Hugging Face's names, renamed ones are added.
        target: What is expected.

    Example:
        >>> found = forms({"net.bias": torch.zeros(2), "epochs": torch.tensor(3)}, Target(nn.LayerNorm(2)))
        >>> [(form.prefix, list(form.tensors), form.left_out) for form in found]
        [('', ['net.bias', 'epochs'], ()), ('net.', ['bias'], ['epochs'])]
    """
    plain = {key.replace("_orig_mod.", ""): value for key, value in tensors.items()}  # without torch.compile's mark
    tensors = plain if len(plain) == len(tensors) else tensors
    found = _under_prefixes(tensors, target)
    other = renamed(tensors)
    if other is not None:
        left_out = [key for key in other if key.startswith(POOLER)]
        kept = {key: value for key, value in other.items() if key not in left_out}
        found.append(Form("", kept, kept, left_out))
    return found


def _under_prefixes(tensors: Tensors, target: Target) -> list[Form]:
    lengths = {len(name) for name in target.own}
    counts = Counter(
        key[:-length]
        for key in tensors
        for length in lengths
        if key[-length - 1 : -length] == "." and key[-length:] in target.own
    )
    counts = Counter(dict(counts.most_common(_PREFIXES)))  # as each is tried on all names
    whole = tuple(prefix for prefix, count in counts.items() if count >= len(target.own))
    bare = tensors
    if target.own.keys() & tensors.keys():
        bare = {key: value for key, value in tensors.items() if not key.startswith(whole)}
    found = [Form("", bare, bare)]
    for prefix in counts:
        under = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        found.append(Form(prefix, under, under, [key for key in tensors if not key.startswith(prefix)]))
    return found


def _kind(tensor: torch.Tensor) -> tuple[object, ...]:
    """What must agree for a tensor to be copied as it is."""
    return tensor.shape, tensor.layout, tensor.is_quantized, tensor.is_meta, tensor.is_floating_point()


def _described(tensor: torch.Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def _first(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:_WIDTH] for name in names[:_SHOWN]) + more
