"""One recorded pass, against hooks and PyTorch's own gradients on the plain model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from captum_astro import UnsupportedModelError
from captum_astro.capture.capture import capture
from captum_astro.capture.wanted import Wanted
from tests.capture.making import call_of
from tests.families import build, images


def _plain(model: nn.Module, x: torch.Tensor, modules: list[nn.Module], target: int) -> tuple[torch.Tensor, list[Any]]:
    """The output, and what enters some modules, in the order of the pass, with the gradient of the target there."""
    seen: list[torch.Tensor] = []
    handles = [module.register_forward_pre_hook(lambda _, given: seen.append(given[0])) for module in modules]
    output = model(x.clone().requires_grad_(True))
    for handle in handles:
        handle.remove()
    slopes = torch.autograd.grad(output[:, target].sum(), seen)
    return output.detach(), list(zip([t.detach() for t in seen], slopes, strict=True))


def test_streams_heads_and_gradients_are_those_of_the_model() -> None:
    model, x = build("cls"), images("cls")
    parts = [part for block in model.blocks for part in (block, block.attn.proj)]
    output, expected = _plain(model, x, parts, target=1)
    passed = capture(call_of(model, x), Wanted(streams="blocks"))
    torch.testing.assert_close(passed.output, output)
    assert passed.problem is None
    entering = {record.stage.block: record for record in reversed(passed.stages)}
    for number, (stream, slope) in enumerate(expected[::2]):
        torch.testing.assert_close(entering[number].stream, stream)
        gradient = entering[number].stream_gradient
        assert gradient is not None
        torch.testing.assert_close(gradient, slope)
    heads = [head for record in passed.stages for head in record.attentions]
    for head, (mixed, slope) in zip(heads, expected[1::2], strict=True):
        torch.testing.assert_close(head.map_outputs[0].transpose(1, 2).flatten(2), mixed)
        torch.testing.assert_close(head.gradient.transpose(1, 2).flatten(2), slope)


def test_without_gradients_only_what_is_read_is_asked() -> None:
    model, x = build("cls"), images("cls")
    passed = capture(call_of(model, x, target=None), Wanted(gradient=False))
    assert not any(head.map_gradients for record in passed.stages for head in record.attentions)
    assert passed.readout[:, 0].eq(1).all()
    assert not passed.readout[:, 1:].any()


def test_some_blocks_only() -> None:
    model, x = build("cls"), images("cls")
    passed = capture(call_of(model, x), Wanted(blocks={1}))
    assert {head.block for record in passed.stages for head in record.attentions} == {1}
    with pytest.raises(ValueError, match="layers selects no attention layer; the blocks are numbered 0 to"):
        capture(call_of(model, x), Wanted(blocks=set()))


def test_a_layer_that_computes_something_else_is_named_or_reported() -> None:
    model, x = build("cls"), images("cls")
    model.blocks[1].attn.proj.register_forward_hook(lambda module, given, output: output * 1.1)
    with pytest.raises(UnsupportedModelError, match=r"blocks\.1\.attn is something other than the layout says"):
        capture(call_of(model, x), Wanted())
    problem = capture(call_of(model, x), Wanted(verify=False)).problem
    assert problem is not None
    assert problem.startswith("blocks.1.attn")
