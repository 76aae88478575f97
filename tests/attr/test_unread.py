"""While a row is carried back, host and device exchange nothing: on a GPU, either would wait in every layer."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from captum_astro.attr._base import TokenAttribution
from captum_astro.attr.explainers import explainers, explainers_named
from captum_astro.layouts.errors import UnsupportedModelError
from tests.families import build, images

aten = torch.ops.aten
READING = {
    aten._local_scalar_dense, aten.equal, aten.is_nonzero, aten.masked_select, aten.nonzero, aten.unique_consecutive,
    aten._unique2,
}  # fmt: skip
CALLS = {torch.Tensor.cpu, torch.Tensor.numpy, torch.Tensor.tolist}  # on a CPU, no operation is dispatched
MADE = {torch.arange, torch.as_tensor, torch.eye, torch.full, torch.ones, torch.tensor, torch.zeros}
MASKED = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}  # by a mask: as many as are True
CARRIED = [one.name for one in explainers() if issubclass(one.method, TokenAttribution)]
MODELS = ["cls", "average", "map_pooling", "differential", "swin_padded", "levit", "astromorphic"]
REFUSED = {
    "AGCAM": {"astromorphic"},
    "BeyondIntuition": {"map_pooling", "differential", "swin_padded", "levit"},
    "InFlow": {"map_pooling", "swin_padded", "levit"},
}


class _Calls(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in CALLS, f"{func.__name__} reads a tensor"
        assert func not in MADE or "device" in (kwargs or {}), f"{func.__name__} makes a tensor on the host"
        if func in {torch.Tensor.__getitem__, torch.Tensor.__setitem__}:
            places = args[1] if isinstance(args[1], tuple) else (args[1],)
            assert not any(isinstance(place, list) for place in places), "a list of places makes a tensor on the host"
        return func(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind = func.overloadpacket
        reads = kind in READING or (kind in MASKED and any(i is not None and i.dtype == torch.bool for i in args[1]))
        assert not reads, f"{func} reads a tensor"
        return func(*args, **(kwargs or {}))


def unread(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in which no tensor may be read, or made of what the host knows."""
    with _Calls(), _Operations():
        return function(*args)


@pytest.mark.parametrize(
    "read",
    [
        torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu, torch.Tensor.nonzero, bool, int,
        lambda x: x[x > 0], lambda x: torch.equal(x, x), lambda x: x.unique(), lambda x: x.expand(9)[x.long()[0]:],
        lambda x: x * torch.ones(1), lambda x: x[[0]],
    ],
)  # fmt: skip
def test_an_exchange_is_seen(read: Callable[[torch.Tensor], object]) -> None:
    with pytest.raises(AssertionError, match=r"(reads|makes) a tensor"):
        unread(read, torch.ones(1))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", CARRIED)
def test_nothing_is_exchanged(name: str, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    carried: list[str] = []
    monkeypatch.setattr("captum_astro.functional.head_rows._on_host", lambda _: False)  # as on a GPU

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: (carried.append(name), unread(function, *args))[1]

    for module in [module for path, module in sys.modules.items() if path.startswith("captum_astro.attr.")]:
        for carry in {"carry", "carry_last"} & vars(module).keys():
            monkeypatch.setattr(module, carry, watched(getattr(module, carry)))
    method = explainers_named([name])[name].method(build(model))
    if model in REFUSED.get(name, ()):
        with pytest.raises(UnsupportedModelError):
            method.attribute(images(model, 2), target=1)
    else:
        method.attribute(images(model, 2), target=1)
        assert carried
