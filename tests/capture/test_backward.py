"""Where gradients are taken, and what is said if one does not arrive."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from captum_astro import UnsupportedModelError
from captum_astro.capture.capture import capture
from captum_astro.capture.wanted import Streams, Wanted
from tests.capture.making import call_of
from tests.families import build, images


@pytest.mark.parametrize("streams", ["blocks", "stages"])
def test_gradients_of_streams_are_at_the_places_asked_for(streams: Streams) -> None:
    model, x = build("cls"), images("cls")
    seen: list[torch.Tensor] = []
    handles = []
    for block in model.blocks:
        handles += [
            block.register_forward_pre_hook(lambda _, given: seen.append(given[0])),
            block.norm2.register_forward_pre_hook(lambda _, given: seen.append(given[0])),
        ]
    handles.append(model.blocks[-1].register_forward_hook(lambda _, given, output: seen.append(output)))
    slopes = torch.autograd.grad(model(x.clone().requires_grad_(True))[:, 1].sum(), seen)
    for handle in handles:
        handle.remove()
    passed = capture(call_of(model, x), Wanted(streams=streams))
    found = [passed.stages[0].stream_gradient, *(record.following_gradient for record in passed.stages)]
    assert len(found) == len(slopes) == 2 * len(model.blocks) + 1
    inside, ends = set(range(1, len(slopes), 2)), set(range(0, len(slopes), 2))
    expected = ends if streams == "blocks" else (inside | ends) - {0}
    for number, (gradient, slope) in enumerate(zip(found, slopes, strict=True)):
        assert (gradient is not None) == (number in expected)
        if gradient is not None:
            torch.testing.assert_close(gradient, slope)


def test_cut_attention_passes_gradients_along_the_stream_alone() -> None:
    model, x = build("cls"), images("cls")
    passed = capture(call_of(model, x), Wanted(cut=True))
    *earlier, last = (head for record in passed.stages for head in record.attentions)
    assert last.gradient.shape == last.map_outputs[0].shape
    for head in earlier:  # only the class token is read, and without attention nothing reaches the others
        assert head.gradient[:, :, 0].any()
        assert not head.gradient[:, :, 1:].any()


class Constant(nn.Module):
    """A head that ignores its tokens."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(x), 5, dtype=x.dtype, requires_grad=True) * 1


def test_an_output_that_does_not_depend_on_the_tokens_is_refused() -> None:
    model, x = build("cls"), images("cls")
    model.head = Constant()
    with pytest.raises(UnsupportedModelError, match="The output does not depend on the final tokens of"):
        capture(call_of(model, x), Wanted())


def test_an_output_that_depends_on_an_earlier_layer_too_is_refused() -> None:
    model, x = build("cls"), images("cls")
    early: list[torch.Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda _, given: early.append(given[0]))
    model.head.register_forward_hook(lambda _, given, output: output + early[-1].mean((1, 2))[:, None])
    with pytest.raises(UnsupportedModelError, match=r"depends on more than the final tokens .* AttnLRP"):
        capture(call_of(model, x), Wanted())


def test_a_layer_that_the_output_does_not_use_is_named() -> None:
    model, x = build("cls"), images("cls")
    model.blocks[1].attn.proj.register_forward_hook(lambda _, given, output: output.detach())
    with pytest.raises(UnsupportedModelError, match=r"No gradient arrives at blocks\.1\.attn"):
        capture(call_of(model, x), Wanted())
