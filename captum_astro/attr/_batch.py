"""Splitting a batch: the validated inputs of a call, and reassembling its attributions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from captum._utils.common import _format_additional_forward_args

from captum_astro.attr._contract import Common
from captum_astro.attr._inputs import check_inputs
from captum_astro.attr._patches import lengths, padded, shortened
from captum_astro.caller import warn
from captum_astro.capture.call import Call
from captum_astro.capture.replica import Replica
from captum_astro.capture.target import Target
from captum_astro.layouts.base import Layout


@dataclass(frozen=True, eq=False)
class Part:
    """Samples of a batch that are explained together.

    Attributes:
        call: The model with the inputs, targets and arguments of these samples.
        samples: Their indices in the batch.
    """

    call: Call
    samples: list[int]


class Batch:
    """The arguments of a call to `attribute`.

    Args:
        replica: The private copy of the model that is run.
        layout: The layout of the explained model, if it has one.
        inputs: Images, lists of patches or token ids, or a tuple with that one tensor.
        target: What is explained.
        common: The arguments common to all methods.

    Raises:
        AssertionError: If the inputs are not a tensor.
        ValueError: If they cannot be explained, or an argument has an invalid value.
    """

    def __init__(self, replica: Replica, layout: Layout | None, inputs: Any, target: Target, common: Common) -> None:
        self.attribute_to = common.get("attribute_to", "input")
        if self.attribute_to not in ("input", "pixels", "grid", "tokens"):
            raise ValueError(f"attribute_to must be 'input', 'pixels', 'grid' or 'tokens', not {self.attribute_to!r}.")
        self._tuple = isinstance(inputs, tuple)
        given: Any = inputs[0] if isinstance(inputs, tuple) and len(inputs) == 1 else inputs
        extra = _format_additional_forward_args(common.get("additional_forward_args")) or ()
        if target.output == "probability" and getattr(replica.model, "returns_log_odds", False):
            raise ValueError(
                f"{type(replica.model).__name__} returns differences of logits, whose softmax is no probability: pass "
                f"output='logit', or probabilities=True to contrast_target."
            )
        layout = layout.reading(given) if layout is not None and isinstance(given, torch.Tensor) else layout
        check_inputs(given, replica.model, layout, self.attribute_to, extra)
        self._given: torch.Tensor = given
        self._dtype = replica.dtype
        self._step = _part_size(common.get("internal_batch_size"), len(given))
        self._call = Call(replica.model, replica.widened(given), target, tuple(map(replica.widened, extra)), layout)
        self._reads_text = layout is not None and layout.reads_text
        self._grouped = layout is not None and layout.dimensions != (4,)

    def parts(self) -> Iterator[Part]:
        """A few samples at a time; texts or lists of patches of equal length together, without their padding.

        The output depends neither on padding nor on what follows an explained position, and methods that average over
        tokens must not see them.

        Raises:
            IndexError: If a position of a text is out of range.
        """
        if not self._grouped:
            batch = len(self._given)
            for start in range(0, batch, self._step):
                samples = list(range(start, min(start + self._step, batch)))
                yield Part(self._cut(slice(start, start + len(samples))), samples)
            return
        numbers, positions = _text_lengths(self._call) if self._reads_text else (lengths(self._call), None)
        groups: dict[int, list[int]] = {}
        for sample, length in enumerate(numbers):
            groups.setdefault(length, []).append(sample)
        for length, samples in groups.items():
            for start in range(0, len(samples), self._step):
                part = samples[start : start + self._step]
                call = self._cut(part)
                if positions is not None:
                    classes = call.target.classes
                    each = classes if isinstance(classes, list) else [classes] * len(part)
                    moved = [(length - 1, *one[1:]) for one in each]
                    call = replace(call, target=replace(call.target, classes=moved))
                yield Part(shortened(call, length), part)

    def joined(self, found: list[tuple[Part, torch.Tensor]]) -> Any:
        """The attributions of all parts in the order of the samples; a tuple if the input was a tuple."""
        if self._grouped:
            longest, dtype = self._given.shape[1], self._dtype if self._reads_text else self._given.dtype
            rows: dict[int, torch.Tensor] = {}
            for part, values in found:
                missing = longest - part.call.inputs.shape[1]
                rows |= zip(part.samples, padded(values.to(dtype), missing, self.attribute_to), strict=True)
            attributions = torch.stack([rows[sample] for sample in range(len(self._given))])
        else:
            attributions = torch.cat([tokens for _, tokens in found]).to(self._given.dtype)
        if not attributions.isfinite().all():
            warn(
                f"The attributions are not finite: a value is too large for {attributions.dtype}. Explain the model in "
                f"float64: model.double(), with inputs.double()."
            )
        return (attributions,) if self._tuple else attributions

    def _cut(self, samples: slice | list[int]) -> Call:
        return cut(self._call, samples)


def cut(call: Call, samples: slice | list[int]) -> Call:
    """A call with some of its samples, their targets and their arguments."""
    batch = len(call.inputs)
    return replace(
        call,
        inputs=call.inputs[samples].detach(),
        target=replace(call.target, classes=_select(call.target.classes, samples, batch)),
        arguments=tuple(_select(value, samples, batch) for value in call.arguments),
    )


def _part_size(internal_batch_size: int | None, batch: int) -> int:
    step = batch if internal_batch_size is None else internal_batch_size
    if not isinstance(step, int) or step < 1:
        raise ValueError(f"internal_batch_size must be a whole number of at least 1, not {internal_batch_size}.")
    return step


def _select(value: Any, samples: slice | list[int], batch: int) -> Any:
    """The part of a target or of an additional argument that belongs to some samples.

    Lists and tensors with one entry per sample are indexed; anything else is shared by all.
    """
    if isinstance(value, list) and len(value) == batch:
        return value[samples] if isinstance(samples, slice) else [value[sample] for sample in samples]
    if isinstance(value, torch.Tensor) and value.ndim > 0 and value.shape[0] == batch and batch > 1:
        return value[samples]
    return value


def _text_lengths(call: Call) -> tuple[list[int], list[int] | None]:
    """The number of tokens read from each text, and its explained position if outputs are per position."""
    assert call.layout is not None
    positions = _positions(call.target.classes, *call.inputs.shape) if call.layout.per_position else None
    if positions is None:
        return call.layout.lengths(call.inputs), None
    return [position + 1 for position in positions], positions


def _positions(target: Any, batch: int, longest: int) -> list[int] | None:
    """The explained positions, from 0; None if the target is not ``(position, token id)``, which is rejected later."""
    given = target if isinstance(target, list) and len(target) == batch else [target] * batch
    if not all(isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], int) for one in given):
        return None
    for position, _ in given:
        if not -longest <= position < longest:
            raise IndexError(f"target position {position} is out of range: the texts have {longest} tokens.")
    return [position % longest for position, _ in given]
