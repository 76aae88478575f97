from __future__ import annotations

import copy
import os
import pickle
import threading
from typing import Any

import pytest
import torch
from torch import nn

from captum_astro import (
    LRP,
    AttnLRP,
    ConservativeLRP,
    TokenGradCAM,
    TokenGradCAMPlusPlus,
    UnsupportedModelError,
    VTranM,
    explainers,
)
from captum_astro.capture.guard import private
from tests.families import build, images

every_method = pytest.mark.parametrize("method", [e.method for e in explainers()], ids=lambda m: m.__name__)


def state(model: nn.Module) -> list[Any]:
    """Everything of a model that a pass could change, by identity where it matters."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return [
        [(name, id(x), x._version, x.dtype, x.requires_grad, x.grad is None) for name, x in tensors],
        [{name: str(value) for name, value in vars(m).items() if "hooks" in name} for m in model.modules()],
        [(type(m), m.training, getattr(m, "fused_attn", None), sorted(vars(m))) for m in model.modules()],
    ]


@every_method
def test_nothing_of_the_model_changes_even_while_it_is_explained(method: Any) -> None:
    model, x = build("hybrid"), images("hybrid")
    next(model.parameters()).requires_grad_(False)
    model.blocks[1].attn.fused_attn = False
    during = []

    class Theirs:  # a hook that led to the model, even by a weak reference, would look at the copy
        it = model

    model.blocks[1].register_forward_hook(lambda *_: during.append(state(Theirs.it)))
    before = state(model)
    method(model).attribute(x, target=1)
    assert all(seen == before for seen in during)
    assert len(during) > 0
    assert state(model) == before


def test_train_mode_keeps_statistics_and_random_state() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout()).train()
    before, random = model[0].running_mean.clone(), torch.get_rng_state()
    with private(model) as replica:
        assert replica.model.training
        replica.model(torch.randn(4, 3))
    assert torch.equal(before, model[0].running_mean)
    assert model[0].num_batches_tracked == 0
    assert torch.equal(random, torch.get_rng_state())


def test_parameters_of_inference_mode_are_refused() -> None:
    with torch.inference_mode():
        model = build("cls")
    with pytest.raises(UnsupportedModelError, match=r"under torch\.inference_mode"):
        VTranM(model).attribute(images("cls"), target=1)


def test_one_thread_at_a_time_whatever_wraps_the_model() -> None:
    model = build("cls")
    order: list[str] = []

    def second() -> None:
        with private(nn.Sequential(nn.Identity(), model)):
            order.append("second")

    thread = threading.Thread(target=second)

    def first() -> None:
        with private(model), private(model):  # a thread may explain inside a hook
            thread.start()
            thread.join(0.2)
            order.append("first")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        first()
    thread.join(5)  # released, even after the error
    assert order == ["first", "second"]


def test_a_lock_is_no_part_of_the_model() -> None:
    model, x = build("cls"), images("cls")
    expected = LRP(model).attribute(x, target=1)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(LRP(other).attribute(x, target=1), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_process_does_not_wait_for_the_threads_of_its_parent() -> None:
    model, begun, go = build("cls"), threading.Event(), threading.Event()

    def hold() -> None:
        with private(model):
            begun.set()
            go.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    begun.wait()
    child = os.fork()
    if child == 0:
        with private(model):
            os._exit(7)
    waiting = threading.Timer(30, os.kill, (child, 9))  # a deadlock fails the test
    waiting.start()
    status = os.waitpid(child, 0)[1]
    waiting.cancel()
    go.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 7


class Tokens(nn.Module):
    """A batch norm whose gradient is transposed, as where its places become tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 5)
        with torch.no_grad():
            self.norm.running_var.uniform_(0.5, 2)
            self.norm.weight.uniform_(0.5, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.conv(x)).flatten(2).transpose(1, 2).tanh().mean(1))


@pytest.mark.parametrize("method", [AttnLRP, ConservativeLRP, LRP, TokenGradCAM, TokenGradCAMPlusPlus])
def test_one_image_through_a_batch_norm(method: Any) -> None:
    """PyTorch's own gradient of one image is wrong here; that of two is right."""
    torch.manual_seed(0)
    model, x = Tokens().double().eval(), torch.rand(2, 3, 6, 7, dtype=torch.float64)
    cam = "Grad" in method.__name__
    explain, given = method(model, model.conv) if cam else method(model), {"relu_attributions": False} if cam else {}
    whole = explain.attribute(x, target=[1, 2], attribute_to="pixels", **given)
    one = explain.attribute(x[:1], target=1, attribute_to="pixels", **given)
    torch.testing.assert_close(one, whole[:1], rtol=1e-9, atol=1e-12)
