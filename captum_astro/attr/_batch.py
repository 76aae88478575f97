"""Splitting a batch: the validated inputs of a call, and reassembling its attributions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from captum._utils.common import _format_additional_forward_args

from captum_astro.attr._contract import Common
from captum_astro.attr._inputs import check_inputs
from captum_astro.attr._patches import lengths, padded, shortened
from captum_astro.attr._split import split_of
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

    Attributes:
        attribute_to: The requested form.
        device: That of the inputs.

    Raises:
        AssertionError: If the inputs are not a tensor.
        IndexError: If a position of a text is out of range.
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
        self.device = given.device
        self._dtype = replica.dtype
        self._split = split_of(common.get("internal_batch_size"), given.device)
        self._call = Call(replica.model, replica.widened(given), target, tuple(map(replica.widened, extra)), layout)
        self._reads_text = layout is not None and layout.reads_text
        self._grouped = layout is not None and layout.dimensions != (4,)
        self._lengths, self._per_position = _lengths(self._call) if self._grouped else ([], False)

    def parts(self) -> Iterator[Part]:
        """A few samples at a time; texts or lists of patches of equal length together, without their padding.

        The output depends neither on padding nor on what follows an explained position, and methods that average over
        tokens must not see them.
        """
        for group in self._groups():
            yield from map(self._part, self._split.parts(group))

    def trying(self) -> AbstractContextManager[None]:
        """A context in which the latest part is explained; it is left without an error if the part does not fit."""
        return self._split.trying()

    def _groups(self) -> list[list[int]]:
        """The samples that can be explained together."""
        if not self._grouped:
            return [list(range(len(self._given)))]
        groups: dict[int, list[int]] = {}
        for sample, length in enumerate(self._lengths):
            groups.setdefault(length, []).append(sample)
        return list(groups.values())

    def _part(self, samples: list[int]) -> Part:
        """Some samples of a group; they follow each other where all samples are one group."""
        if not self._grouped:
            return Part(cut(self._call, slice(samples[0], samples[-1] + 1)), samples)
        call, length = cut(self._call, samples), self._lengths[samples[0]]
        if self._per_position:
            classes = call.target.classes
            each = classes if isinstance(classes, list) else [classes] * len(samples)
            moved = [(length - 1, *one[1:]) for one in each]
            call = replace(call, target=replace(call.target, classes=moved))
        return Part(shortened(call, length), samples)

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


def cut(call: Call, samples: slice | list[int]) -> Call:
    """A call with some of its samples, their targets and their arguments."""
    batch = len(call.inputs)
    return replace(
        call,
        inputs=call.inputs[samples].detach(),
        target=replace(call.target, classes=_select(call.target.classes, samples, batch)),
        arguments=tuple(_select(value, samples, batch) for value in call.arguments),
    )


def _select(value: Any, samples: slice | list[int], batch: int) -> Any:
    """The part of a target or of an additional argument that belongs to some samples.

    Lists and tensors with one entry per sample are indexed; anything else is shared by all.
    """
    if isinstance(value, list) and len(value) == batch:
        return value[samples] if isinstance(samples, slice) else [value[sample] for sample in samples]
    if isinstance(value, torch.Tensor) and value.ndim > 0 and value.shape[0] == batch and batch > 1:
        return value[samples]
    return value


def _lengths(call: Call) -> tuple[list[int], bool]:
    """The number of tokens read from each text or list of patches, and whether a position of each text is explained."""
    assert call.layout is not None
    if not call.layout.reads_text:
        return lengths(call), False
    positions = _positions(call.target.classes, *call.inputs.shape) if call.layout.per_position else None
    if positions is None:
        return call.layout.lengths(call.inputs), False
    return [position + 1 for position in positions], True


def _positions(target: Any, batch: int, longest: int) -> list[int] | None:
    """The explained positions, from 0; None if the target is not ``(position, token id)``, which is rejected later."""
    given = target if isinstance(target, list) and len(target) == batch else [target] * batch
    if not all(isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], int) for one in given):
        return None
    for position, _ in given:
        if not -longest <= position < longest:
            raise IndexError(f"target position {position} is out of range: the texts have {longest} tokens.")
    return [position % longest for position, _ in given]
