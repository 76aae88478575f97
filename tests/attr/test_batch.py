"""A batch and its parts."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from captum_astro import TokenGradCAMPlusPlus, TransformerAttribution, TransformerMM, VTranM, explainers
from captum_astro.attr import _split
from captum_astro.attr._batch import Batch
from captum_astro.attr._split import Fitting
from captum_astro.capture.replica import Replica
from captum_astro.capture.target import Target
from tests.attr.test_split import Full
from tests.families import build, images
from tests.libraries import without_relu


def _batch(x: torch.Tensor, target: Any, **common: Any) -> Batch:
    return Batch(Replica(nn.Linear(1, 1)), None, x, Target(target), common)


def test_parts() -> None:
    x, tensor = torch.rand(5, 3, 2, 2, requires_grad=True), torch.arange(5)
    given = {"additional_forward_args": (tensor, "same", torch.ones(2)), "internal_batch_size": 2}
    batch = _batch(x, [0, 1, 2, 3, 4], **given)
    found = list(batch.parts())
    assert [part.samples for part in found] == [[0, 1], [2, 3], [4]]
    assert torch.equal(torch.cat([part.call.inputs for part in found]), x)
    assert not any(part.call.inputs.requires_grad for part in found)
    assert [part.call.target.classes for part in found] == [[0, 1], [2, 3], [4]]
    assert [part.call.arguments[0].tolist() for part in found] == [[0, 1], [2, 3], [4]]
    assert all(part.call.arguments[1] == "same" and len(part.call.arguments[2]) == 2 for part in found)
    assert torch.equal(batch.joined([(part, part.call.inputs) for part in found]), x)
    (whole,) = _batch(x, 7).parts()
    assert (len(whole.call.inputs), whole.call.target.classes, whole.call.arguments) == (5, 7, ())


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "2", "Auto", "", torch.ones(2)], ids=str)
def test_bad_part_sizes(wrong: Any) -> None:
    assert len(list(_batch(torch.rand(5, 3, 2, 2), 0, internal_batch_size=9).parts())) == 1
    said = f"internal_batch_size must be 'auto' or a whole number of at least 1, not {wrong!r}."
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        _batch(torch.rand(5, 3, 2, 2), 0, internal_batch_size=wrong)


def test_selecting_samples_from_arguments() -> None:
    x, tensor = torch.rand(3, 3, 2, 2), torch.arange(6).reshape(3, 2)
    shared = (4, None, (1, 2, 3), ["a", "b"], "abc", torch.arange(8).reshape(4, 2), torch.tensor(3))
    batch = _batch(x, tensor, additional_forward_args=(["a", "b", "c"], *shared), internal_batch_size=2)
    first, last = batch.parts()
    assert torch.equal(first.call.target.classes, tensor[:2])
    assert torch.equal(last.call.target.classes, tensor[2:])
    assert last.call.arguments[0] == ["c"]
    assert all(found is given for found, given in zip(last.call.arguments[1:], shared, strict=True))
    one = torch.tensor([3])
    (only,) = _batch(x[:1], one).parts()
    assert only.call.target.classes is one


@pytest.mark.parametrize("method", [VTranM, TransformerMM, TransformerAttribution, TokenGradCAMPlusPlus])
def test_values_that_overflow_are_warned_of(method: Any) -> None:
    """As by gradients of a huge head; what the message recommends works."""
    options = {"output": "logit"} if method is VTranM else {}
    model = build("cls", torch.float32)
    model.head.weight.data *= 1e36
    with pytest.warns(UserWarning, match=r"not finite: a value is too large for torch\.float32") as said:
        method(model).attribute(images("cls", 1, torch.float32), target=1, **options)
    assert said[-1].filename == __file__
    assert method(model.double()).attribute(images("cls", 1), target=1, **options).isfinite().all()


@pytest.mark.parametrize("method", [explainer.method for explainer in explainers()], ids=lambda m: m.__name__)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_as_many_as_fit_give_the_same(method: Any, device: str, monkeypatch) -> None:
    """With an argument for each sample; on a device that is full in the middle of a pass, and on a small machine."""
    full = Full(2 if device == "cuda" else 9)

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = build("cls")
            self.inner.blocks[2].register_forward_pre_hook(lambda block, given: full(len(given[0])))

        def forward(self, x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
            return self.inner(x + shift)

    x, shift = images("cls", 5), torch.linspace(0, 1, 5, dtype=torch.float64)[:, None, None, None]
    given: Any = {"target": [1, 3, 0, 2, 1], "additional_forward_args": shift, **without_relu(method)}
    explain = method(Shifted()).attribute
    expected = explain(x, internal_batch_size=2, **given)
    full.asked.clear()
    monkeypatch.setattr(_split, "Fitting", lambda _, most: Fitting(torch.device(device), most))
    monkeypatch.setattr(_split, "free_memory", lambda: 0)
    random = torch.get_rng_state()
    torch.testing.assert_close(explain(x, internal_batch_size="auto", **given), expected, rtol=1e-7, atol=1e-12)
    assert torch.equal(random, torch.get_rng_state())
    assert full.asked[0] == (5 if device == "cuda" else 1)
    assert device == "cuda" or max(full.asked) <= 2  # two images for each mask of ViTCX
