"""What the kinds of operations say of themselves is true of each operation."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import QuickGELU, activations
from torch import nn

from captum_astro.capture import operations as kinds

T = torch.Tensor
X = torch.rand(2, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
EXTRA: dict[str, tuple[Any, ...]] = {
    "avg_pool1d": (2,), "avg_pool2d": (2,), "avg_pool3d": (2,), "adaptive_avg_pool1d": (2,),
    "adaptive_avg_pool2d": (2,), "adaptive_avg_pool3d": (2,), "lp_pool1d": (2.0, 2), "lp_pool2d": (2.0, 2),
    "cumsum": (1,), "interpolate": (None, 2.0), "upsample": (None, 2.0), "std": (1,), "var": (1,), "pow": (3.0,),
    "__pow__": (3.0,), "glu": (1,), "prelu": (torch.full((1,), 0.3, dtype=torch.float64),),
    "clamp": (0.6, 0.9), "clip": (0.6, 0.9), "clamp_min": (0.7,), "clamp_max": (0.7,), "masked_fill": (X > 1, 2.0),
    "fold": ((9, 9), (2, 2), 1, 0, 1),
}  # fmt: skip
MOVED: dict[str, tuple[Any, ...]] = {
    "reshape": ((2, -1),), "view": (2, -1), "permute": ((1, 0, 2, 3),), "transpose": (1, 2), "movedim": (1, 3),
    "moveaxis": (1, 3), "swapaxes": (1, 2), "swapdims": (1, 2), "roll": (1, 2), "narrow": (1, 1, 2), "select": (1, 2),
    "unsqueeze": (1,), "repeat_interleave": (2, 1), "flip": ((1, 2),), "rot90": (), "unflatten": (1, (2, 2)),
    "broadcast_to": ((2, 4, 8, 8),), "expand": (2, 4, 8, 8), "repeat": (1, 2, 1, 1), "tile": ((2, 1, 1, 1),),
    "pixel_shuffle": (2,), "pixel_unshuffle": (2,), "channel_shuffle": (2,), "tril": (), "triu": (), "amax": (1,),
    "amin": (1,), "max_pool2d": (2,), "adaptive_max_pool2d": (2,), "pad": ((1, 1),),
    "index_select": (1, torch.tensor([2])), "__getitem__": (0,),
    "flatten": (), "squeeze": (), "clone": (), "contiguous": (), "diagonal": (),
}  # fmt: skip


def _id(func: Any) -> str:
    """The same in every process, unlike the function's text."""
    homes = {"torch": torch, "F": F, "Tensor": T}
    return next(f"{home}.{name}" for home, of in homes.items() for name in dir(of) if getattr(of, name, None) is func)


def _named(kind: Iterable[Any]) -> list[Any]:
    return [pytest.param(func, id=name) for name, func in sorted((_id(func), func) for func in kind)]


def _called(func: Any, x: torch.Tensor = X) -> torch.Tensor:
    if func.__name__ in ("avg_pool1d", "adaptive_avg_pool1d", "lp_pool1d"):
        x = x.flatten(1, 2)
    if func.__name__ == "fold":
        x = x.reshape(2, 4, 64)
    result: torch.Tensor = func(x, *EXTRA.get(func.__name__, ()))
    return result


def test_a_name_stands_for_all_functions_and_methods_of_it() -> None:
    assert kinds.named("softmax") == {torch.softmax, F.softmax, T.softmax}
    assert kinds.named("__add__") == {T.__add__}
    assert kinds.named("there is none") == frozenset()


@pytest.mark.parametrize("func", _named(kinds.ACTIVATION))
def test_activations_are_0_at_0(func: Any) -> None:
    assert torch.equal(_called(func, torch.zeros(2, 4, 3, 3, dtype=torch.float64)), torch.zeros(2, 4, 3, 3))


@pytest.mark.parametrize("func", _named(kinds.GATES))
def test_gates_are_between_0_and_1(func: Any) -> None:
    found = func(torch.linspace(-20, 20, 101, dtype=torch.float64))
    assert found.min() >= 0
    assert found.max() <= 1
    assert found.std() > 0.3


@pytest.mark.parametrize("func", _named(kinds.SATURATING))
def test_saturating_activations_end_at_a_constant(func: Any) -> None:
    found = func(torch.tensor([-60.0, 60.0], dtype=torch.float64))
    assert found.abs().min() < 1e-20
    assert found.abs().max() == pytest.approx(60)


@pytest.mark.parametrize("func", _named(kinds.POOL - kinds.named("grid_sample")))
def test_pools_are_of_degree_one(func: Any) -> None:
    torch.testing.assert_close(_called(func, 3 * X), 3 * _called(func), rtol=1e-12, atol=0)


@pytest.mark.parametrize("func", _named(kinds.HOMOGENEOUS | kinds.VARIANCE | kinds.POWER))
def test_homogeneous_operations_have_a_degree(func: Any) -> None:
    factor = _called(func, 4 * X) / _called(func)
    torch.testing.assert_close(factor, torch.full_like(factor, float(factor.flatten()[0])), rtol=1e-9, atol=0)


@pytest.mark.parametrize("func", _named(kinds.INVERSE - kinds.named("__rdiv__", "__rtruediv__")))
def test_inverses_fall_as_a_size_grows(func: Any) -> None:
    assert (func(2 * X) < func(X)).all()


@pytest.mark.parametrize("func", _named(kinds.MUL | kinds.DIV | kinds.MATMUL))
def test_products_are_linear_in_the_first_factor(func: Any) -> None:
    a, b, other = torch.rand(3, 2, 4, 4, dtype=torch.float64) + 0.5
    if func.__name__ in ("mm", "mv"):
        a, b, other = a[0], b[0], other[0] if func.__name__ == "mm" else other[0, 0]
    torch.testing.assert_close(func(2 * a + b, other), 2 * func(a, other) + func(b, other), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("inplace", _named(kinds.IN_PLACE))
def test_replacements_compute_what_is_computed_in_place(inplace: Any) -> None:
    replacement = kinds.IN_PLACE[inplace]
    name = replacement.__name__
    others: tuple[Any, ...] = EXTRA.get(name, ())
    if name in ("add", "sub", "mul", "div"):
        others = (X + 1,)
    elif name == "addcmul":
        others = (X + 1, X + 2)
    elif name == "index_add":
        others = (0, torch.tensor([1, 0]), X + 1)
    changed = X.clone()
    found = inplace(changed, *others)
    assert torch.equal(found, replacement(X, *others))
    assert found is changed or torch.equal(found, changed)


@pytest.mark.parametrize("func", _named(func for func in kinds.MOVES if getattr(func, "__name__", "") in MOVED))
def test_moves_make_no_new_values(func: Any) -> None:
    found = func(X, *MOVED[func.__name__])
    old = {*X.flatten().tolist(), 0.0}
    assert {*found.flatten().tolist()} <= old


def test_properties_move_values_too() -> None:
    x = X[0, 0]
    for name in ("T", "mT", "H", "mH", "data", "real"):
        get = getattr(T, name).__get__
        assert get in kinds.MOVES
        assert torch.equal(get(x).sum(), x.sum())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (first, second)
        for first in ("ACTIVATION", "GATES", "SATURATING", "GLU", "SOFTMAX", "PRODUCT", "NORM", "INVERSE", "POWER")
        for second in ("AFFINE", "ACTIVATION", "GATES", "SATURATING", "GLU", "SOFTMAX", "PRODUCT", "NORM")
        if first != second
    ],
)
def test_an_operation_is_of_one_kind(first: str, second: str) -> None:
    assert not getattr(kinds, first) & getattr(kinds, second)


def test_like_takes_only_the_form_of_its_second_argument() -> None:
    assert kinds.LIKE < kinds.MOVES
    for func in kinds.LIKE - kinds.named("type_as"):
        assert torch.equal(func(X[:1], X[:1] * 7), X[:1])


def test_composed_activations_are_known_by_their_class() -> None:
    class Own(QuickGELU):
        """Which may compute anything."""

    assert all(map(kinds.is_composed, (QuickGELU(), activations.Swish(), activations.HardMish())))
    assert not any(map(kinds.is_composed, (Own(), nn.GELU(), nn.Linear(2, 2))))
    elsewhere = type("QuickGELU", (nn.Module,), {"__module__": "open_clip.transformer"})()
    assert kinds.is_composed(elsewhere)


def test_what_depends_on_the_image() -> None:
    one, other = torch.ones(1, requires_grad=True), torch.ones(1)
    assert [kinds.needs_grad(x) for x in (one, other, 3.0, None)] == [True, False, False, False]
    assert kinds.both_need_grad((one, one))
    assert not any(map(kinds.both_need_grad, ((one, other), (other, one), (one,), ())))


def test_arguments_inside_lists_are_found() -> None:
    assert kinds.flattened((1, [2, 3]), {"a": (4, 5), "b": 6}) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(("exponent", "positive", "negative"), [
    (2, True, False), (0.5, True, False), (-1, False, True), (0, False, False),
    (torch.tensor([1.0, -1.0]), False, False), (torch.tensor([1.0, 2.0]), True, False),
    (torch.tensor(2.0, requires_grad=True), False, False),
])  # fmt: skip
def test_signs_of_exponents(exponent: Any, positive: bool, negative: bool) -> None:
    assert (kinds.is_positive(exponent), kinds.is_negative(exponent)) == (positive, negative)


def test_where_an_activation_says_that_it_acts_in_place() -> None:
    for func in (F.relu, F.silu, F.leaky_relu, F.hardtanh):
        assert list(inspect.signature(func).parameters)[kinds.place_of_inplace(func)] == "inplace"
    assert kinds.place_of_inplace(torch.tanh) is kinds.place_of_inplace(F.softmax) is None


def test_the_message_names_the_operation_and_a_way_out() -> None:
    assert (
        kinds.no_rule(torch.fft.fft) == "fft_fft has no propagation rule here. The attention and gradient methods work."
    )
    assert kinds.no_rule(3).startswith("3 has no propagation rule")
