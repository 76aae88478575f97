"""One model in several threads, processes and explanations at the same time, and explanations that are interrupted."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.utils.data import DataLoader, Dataset

from captum_astro import LRP, AttnLRP, ConservativeLRP, TokenGradCAM, UnsupportedModelError, VTranM, explainers
from tests.families import build, images

METHODS = [e.method for e in explainers()]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__)


@pytest.fixture
def _switching() -> Iterator[None]:
    """Threads change places as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def _tiny(dtype: torch.dtype) -> tuple[nn.Module, torch.Tensor]:
    model = VisionTransformer(img_size=16, patch_size=8, embed_dim=8, depth=2, num_heads=2, num_classes=3)
    return model.eval().to(dtype), torch.randn(1, 3, 16, 16).to(dtype)


def _tokens(method: Any, model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = method(model).attribute(x, target=1, attribute_to="tokens")
    return found


def _together(work: list[Callable[[], None]], beside: list[Callable[[], None]] | None = None) -> list[BaseException]:
    """Run each in a thread of its own, those beside again and again until the others are done; the errors."""
    errors: list[BaseException] = []
    done = threading.Event()

    def run(one: Callable[[], None], again: bool) -> None:
        try:
            one()
            while again and not done.is_set():
                one()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(one, False)) for one in work]
    others = [threading.Thread(target=run, args=(one, True)) for one in beside or []]
    for thread in (*threads, *others):
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    for thread in others:
        thread.join()
    return errors


@pytest.mark.usefixtures("_switching")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_method_beside_every_other_inference_and_training(dtype: torch.dtype) -> None:
    model, x = _tiny(dtype)
    wrapped = nn.Sequential(nn.Identity(), model)
    tasks = [(method, part) for method in METHODS for part in (model, wrapped)]
    expected = [_tokens(method, part, x) for method, part in tasks]
    logits, parameters = model(x).detach(), list(model.parameters())

    def loss() -> torch.Tensor:
        return F.cross_entropy(model(x).float(), torch.tensor([2]))

    loss().backward()
    gradients = [p.grad.clone() for p in parameters if p.grad is not None]

    def explain(first: int) -> None:
        for number in range(first, first + len(tasks), 2):
            method, part = tasks[number % len(tasks)]
            assert torch.equal(_tokens(method, part, x), expected[number % len(tasks)]), method

    def infer() -> None:
        with torch.no_grad():
            assert torch.equal(model(x), logits)

    def train() -> None:
        model.zero_grad()
        assert all(p.requires_grad and p.dtype == dtype for p in parameters)
        loss().backward()
        found = [p.grad for p in parameters if p.grad is not None]
        assert all(torch.equal(a, b) for a, b in zip(found, gradients, strict=True))

    assert not _together([lambda first=first * 7: explain(first) for first in range(8)], [infer, train])
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


@every_method
def test_an_explanation_inside_a_hook_of_another(method: Any) -> None:
    model, x = build("cls"), images("cls", 1)
    expected, inner = _tokens(method, model, x), {m.__name__: _tokens(m, model, x) for m in (LRP, VTranM)}
    found: dict[str, torch.Tensor] = {}

    class Theirs:  # a hook that led to the model, even by a weak reference, would explain the copy
        it = model

    def hook(*_: Any) -> None:
        for explained in (LRP, VTranM):
            if explained.__name__ not in found:
                found[explained.__name__] = torch.empty(0)  # the hook runs in the inner pass too
                found[explained.__name__] = _tokens(explained, Theirs.it, x)

    handle = model.blocks[1].attn.proj.register_forward_hook(hook)
    assert torch.equal(_tokens(method, model, x), expected)
    handle.remove()
    assert all(torch.equal(found[name], inner[name]) for name in inner)


@every_method
def test_a_training_step_in_the_meantime_is_told(method: Any) -> None:
    model, x = build("cls"), images("cls", 1)

    class Theirs:  # a hook that led to the weight, even by a weak reference, would change the copy's
        weight = model.norm.weight

    def step() -> None:
        with torch.no_grad():
            Theirs.weight.mul_(1.0)

    model.blocks[1].register_forward_hook(lambda *_: _together([step]).clear())
    with pytest.warns(UserWarning, match="changed while it was explained, as by a training step"):
        _tokens(method, model, x)


class _Stops(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt


@every_method
@pytest.mark.parametrize("backward", [False, True])
def test_an_interrupt_leaves_everything_as_it_was(method: Any, backward: bool) -> None:
    model, x = build("cls"), images("cls", 1)
    expected = _tokens(method, model, x)

    def stop(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        if not backward:
            raise KeyboardInterrupt
        return _Stops.apply(output)

    handle = model.head.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        _tokens(method, model, x)
    handle.remove()
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())
    # no mode is left in this thread, and no lock is held
    assert torch.equal(_tokens(method, model, x), expected)
    found: list[torch.Tensor] = []
    assert not _together([lambda: found.append(_tokens(method, model, x))])
    assert torch.equal(found[0], expected)


class _Explained(Dataset[torch.Tensor]):
    def __init__(self, model: nn.Module, x: torch.Tensor) -> None:
        self.model, self.x = model, x

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> torch.Tensor:
        return _tokens(METHODS[index], self.model, self.x)[0]


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux")
def test_workers_of_a_data_loader() -> None:
    model, x = build("cls"), images("cls", 1)
    data = _Explained(model, x)
    expected = torch.stack([data[number] for number in range(4)])
    loader = DataLoader(data, batch_size=4, num_workers=1, multiprocessing_context="fork", timeout=60)
    assert torch.equal(next(iter(loader)), expected)


class OneByOne(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = build("cls")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.inner(x[i : i + 1]) for i in range(len(x))])


@pytest.mark.parametrize("method", [LRP, AttnLRP, ConservativeLRP, VTranM, TokenGradCAM])
def test_a_wrapper_that_runs_the_model_once_for_each_image_is_refused(method: Any) -> None:
    with pytest.raises(UnsupportedModelError, match=r"(was called|ran) 2 times in one pass"):
        method(OneByOne()).attribute(images("cls", 2), target=1, attribute_to="grid")
