from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from captum_astro.functional.astromorphic import astromorphic_attention
from captum_astro.functional.astromorphic_effective import effective_attention, secant
from captum_astro.functional.astromorphic_features import FLOOR, feature_map, normaliser, read_and_written
from captum_astro.functional.astromorphic_positions import decayed, position_keys

OPTIONS = [
    {"nonlinearity": n, "alpha": a, "causal": c}
    for n, a, c in itertools.product(("inside", "outside", "none"), (0.25, 1.0), (False, True))
]
SCALE = 3.7


def phi(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.elu(x) + 1


def twin(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, memory: torch.Tensor | None, mask: torch.Tensor | None,
    decay: float, nonlinearity: str, alpha: float, causal: bool, scale: float = SCALE,
) -> torch.Tensor:  # fmt: skip
    """The equations, token by token. One sample and head at a time: (n, m), (n, d_v), M (m, N)."""
    n = len(query)
    astro = torch.zeros_like(key)
    if memory is not None:
        size = memory.shape[1]
        p = torch.zeros(size, size, dtype=key.dtype)
        for i in range(size):
            for j in range(size):
                p[i, j] = math.exp(-abs(i - j) / decay)
        a = memory.T @ (memory @ p @ memory.T)
        astro = phi(a)[:n]
    outputs = []
    for i in range(n):
        h = torch.zeros(query.shape[1], value.shape[1], dtype=value.dtype)
        total = torch.zeros(query.shape[1], dtype=value.dtype)
        for j in range(i + 1 if causal else n):
            if mask is None or mask[j]:
                neuron, astrocyte = torch.outer(phi(key[j]), value[j]), torch.outer(astro[j], value[j])
                h = h + neuron + astrocyte
                total = total + phi(key[j])
        if nonlinearity == "inside":
            h = torch.sigmoid(h / scale)
        elif nonlinearity == "outside":
            h = torch.sigmoid(h) / scale
        else:
            h = h / scale
        c = phi(query[i]) @ total**alpha
        outputs.append(phi(query[i]) @ h / c)
    return torch.stack(outputs)


def tensors(seed: int = 0, n: int = 11, m: int = 4, width: int = 3, size: int = 13) -> list[torch.Tensor]:
    """Query, key, value (2, 2 heads, n, .) and M (2 heads, m, size), in float64."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((2, 2, n, m), (2, 2, n, m), (2, 2, n, width), (2, m, size))
    return [torch.randn(*s, generator=generator, dtype=torch.float64).mul_(1.5).requires_grad_() for s in shapes]


def padding(n: int) -> torch.Tensor:
    mask = torch.ones(2, n, dtype=torch.bool)
    mask[1, n - 4 :] = False
    return mask


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_the_equations_token_by_token(options: dict[str, Any], relative: bool, masked: bool) -> None:
    q, k, v, memory = given = tensors()
    mask = padding(11) if masked else None
    position = position_keys(memory, 11, 2.5) if relative else None
    found = astromorphic_attention(q, k, v, position, scale=SCALE, mask=mask, chunk=4, **options)
    m = [*memory] if relative else [None, None]
    kept = [None, None] if mask is None else [*mask]
    expected = torch.stack(
        [
            torch.stack([twin(q[b, h], k[b, h], v[b, h], m[h], kept[b], 2.5, **options) for h in range(2)])
            for b in range(2)
        ]
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    wanted = given if relative else given[:3]
    cotangent = torch.randn_like(found)
    for ours, theirs in zip(
        torch.autograd.grad(found, wanted, cotangent), torch.autograd.grad(expected, wanted, cotangent), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@settings(max_examples=100, deadline=None)
@given(n=st.integers(1, 70), chunk=st.integers(1, 80), decay=st.floats(0.01, 1000), seed=st.integers(0, 99))
def test_the_recurrence_is_the_kernel(n: int, chunk: int, decay: float, seed: int) -> None:
    x = torch.randn(2, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    place = torch.arange(n, dtype=torch.float64)
    p = torch.exp(-(place[:, None] - place).abs() / decay)
    torch.testing.assert_close(decayed(x, decay, chunk), x @ p, rtol=1e-12, atol=1e-12)


def test_the_recurrence_over_many_chunks_has_a_gradient() -> None:
    x = torch.randn(3, 1000, dtype=torch.float64, requires_grad=True)
    place = torch.arange(1000, dtype=torch.float64)
    p = torch.exp(-(place[:, None] - place).abs() / 40)
    cotangent = torch.randn_like(x)
    (found,) = torch.autograd.grad(decayed(x, 40.0, 8), x, cotangent)
    torch.testing.assert_close(found, cotangent @ p, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("options", [o for o in OPTIONS if o["causal"]], ids=str)
def test_the_chunks_do_not_matter(options: dict[str, Any]) -> None:
    q, k, v, memory = tensors(n=37, size=37)
    position = position_keys(memory, 37, 2.5)
    whole = astromorphic_attention(q, k, v, position, scale=SCALE, chunk=37, **options)
    for chunk in (1, 2, 5, 16, 100, None):
        found = astromorphic_attention(q, k, v, position, scale=SCALE, chunk=chunk, **options)
        torch.testing.assert_close(found, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [o for o in OPTIONS if o["causal"]], ids=str)
def test_the_future_changes_nothing(options: dict[str, Any]) -> None:
    q, k, v, memory = tensors(n=20, size=20)
    position = position_keys(memory, 20, 2.5)
    before = astromorphic_attention(q, k, v, position, scale=SCALE, chunk=8, **options)
    changed = [x.detach().clone() for x in (q, k, v)]
    for x in changed:
        x[:, :, 13:] = 100 * torch.randn_like(x[:, :, 13:])
    after = astromorphic_attention(*changed, position, scale=SCALE, chunk=8, **options)
    assert torch.equal(before[:, :, :13], after[:, :, :13])
    assert not torch.allclose(before[:, :, 13:], after[:, :, 13:])
    (gradient,) = torch.autograd.grad(before[:, :, 5].sum(), k)
    assert (gradient[:, :, 6:] == 0).all()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("masked", [True, False])
def test_the_effective_attention_rebuilds_the_output(options: dict[str, Any], masked: bool) -> None:
    q, k, v, memory = (x.detach() for x in tensors())
    mask = padding(11) if masked else None
    position = position_keys(memory, 11, 2.5)
    output = astromorphic_attention(q, k, v, position, scale=SCALE, mask=mask, **options)
    effective = effective_attention(q, k, v, position, scale=SCALE, mask=mask, **options)
    heads = 2 * 3 if options["nonlinearity"] != "none" else 2
    whole = effective.rows(0, 11)
    assert whole.shape == (2, heads, 11, 11)
    assert (whole >= 0).all()
    assert effective.per_channel == (heads == 6)
    if options["causal"]:
        assert (whole.triu(1) == 0).all()
    if masked:
        assert (whole[1, :, :, 7:] == 0).all()
    mixed = whole @ effective.values
    if effective.per_channel:
        mixed = mixed.unflatten(1, (2, 3)).squeeze(-1).transpose(-2, -1)
    torch.testing.assert_close(mixed + effective.constant, output, rtol=1e-10, atol=1e-10)
    contributions = effective.contributions(0, 11)
    torch.testing.assert_close(contributions.sum(3) + effective.constant, output, rtol=1e-10, atol=1e-10)
    for start, stop in ((0, 1), (3, 8), (10, 11)):
        torch.testing.assert_close(effective.rows(start, stop), whole[:, :, start:stop], rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(effective.contributions(start, stop), contributions[:, :, start:stop])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_contributions_from_the_definition(options: dict[str, Any]) -> None:
    q, k, v, memory = (x.detach() for x in tensors(n=6))
    position = position_keys(memory, 6, 2.5)
    found = effective_attention(q, k, v, position, scale=SCALE, **options).contributions(0, 6)
    for b, h, i in itertools.product(range(2), range(2), range(6)):
        seen = range(i + 1 if options["causal"] else 6)
        memories = sum(torch.outer(phi(k[b, h, j]) + position[h, j], v[b, h, j]) for j in seen)
        c = phi(q[b, h, i]) @ sum(phi(k[b, h, j]) for j in seen) ** options["alpha"]
        inner = {"inside": memories / SCALE, "outside": memories, "none": memories}[options["nonlinearity"]]
        secants = (torch.sigmoid(inner) - 0.5) / inner if options["nonlinearity"] != "none" else torch.ones_like(inner)
        for j in range(6):
            key = phi(k[b, h, j]) + position[h, j]
            expected = ((phi(q[b, h, i]) * key) @ secants) * v[b, h, j] / (SCALE * c) if j in seen else 0 * v[b, h, j]
            torch.testing.assert_close(found[b, h, i, j], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_pull_equals_the_transposed_product(options: dict[str, Any]) -> None:
    q, k, v, memory = (x.detach() for x in tensors(n=37, size=40))
    effective = effective_attention(q, k, v, position_keys(memory, 37, 2.5), scale=SCALE, **options)
    weights = torch.randn(2, 2, 37, 3, dtype=torch.float64)
    maps = effective.rows(0, 37).unflatten(1, (2, -1)).expand(-1, -1, 3, -1, -1)
    expected = torch.einsum("bhid,bhdij->bhjd", weights, maps)
    torch.testing.assert_close(effective.pull(weights), expected, rtol=1e-10, atol=1e-12)


def test_the_units_are_heads_too() -> None:
    q, k, v, _ = (x.detach() for x in tensors())
    effective = effective_attention(q, k, v, scale=SCALE)
    units = torch.einsum("bhiu,bhju->bhuij", effective.read, effective.keys)
    vectors = effective.slope[:, :, :, None] * v[:, :, None]
    mixed = (units @ vectors).sum(2) + effective.constant
    torch.testing.assert_close(mixed, astromorphic_attention(q, k, v, scale=SCALE), rtol=1e-12, atol=1e-12)


@settings(max_examples=200, deadline=None)
@given(h=st.floats(-700, 700))
def test_the_secant(h: float) -> None:
    x = torch.tensor(h, dtype=torch.float64)
    assert 0 < secant(x) <= 0.25
    torch.testing.assert_close(0.5 + secant(x) * x, torch.sigmoid(x), rtol=1e-14, atol=1e-15)


def test_secant_is_a_constant() -> None:
    assert not secant(torch.randn(3, requires_grad=True)).requires_grad
    assert (secant(torch.zeros(3)) == 0.25).all()


@pytest.mark.parametrize("alpha", [0.25, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("causal", [False, True])
def test_nothing_vanishes(alpha: float, dtype: torch.dtype, causal: bool) -> None:
    for reach in (1.0, 30.0, 1e4):
        q, k, v = ((reach * torch.randn(2, 2, 50, 8)).to(dtype).requires_grad_() for _ in range(3))
        with torch.no_grad():
            q[0], k[0] = -q[0].abs(), -k[0].abs()
        out = astromorphic_attention(q, k, v, scale=8.0, alpha=alpha, causal=causal)
        assert out.dtype == dtype
        assert out.isfinite().all()
        for gradient in torch.autograd.grad(out.float().square().sum(), (q, k, v)):
            assert gradient.isfinite().all()


def test_the_bound_on_the_normaliser() -> None:
    low = torch.full((1, 1, 20, 6), -1e9)
    lowest, written, _ = read_and_written(low, low, None, None)
    assert torch.equal(lowest, written)
    assert lowest.min() >= FLOOR * (1 - 1e-5)
    for alpha in (0.0, 0.25, 1.0):
        c = normaliser(lowest, lowest, alpha)
        assert (c >= 6 * FLOOR * (20 * FLOOR) ** alpha * (1 - 1e-4)).all()
        first = normaliser(lowest, lowest, alpha, causal=True)[0, 0, 0, 0]
        assert first >= 6 * FLOOR ** (1 + alpha) * (1 - 1e-4)


def test_the_feature_map() -> None:
    x = torch.linspace(-50, 5, 601, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(feature_map(x), phi(x), rtol=0, atol=1e-15)
    (slope,) = torch.autograd.grad(feature_map(x).sum(), x)
    torch.testing.assert_close(slope, torch.where(x > 0, 1.0, x.exp()), rtol=1e-12, atol=0)
    zero = torch.zeros(1, requires_grad=True)
    assert torch.autograd.grad(feature_map(zero).sum(), zero)[0] == 1


def test_only_padding() -> None:
    q, k, v, _ = tensors()
    mask = torch.zeros(2, 11, dtype=torch.bool)
    for options in OPTIONS:
        out = astromorphic_attention(q, k, v, scale=SCALE, mask=mask, **options)
        assert out.isfinite().all()
        assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), (q, k, v)))


def test_autocast_is_switched_off() -> None:
    q, k, v = torch.randn(3, 2, 2, 30, 8).unbind()
    plain = astromorphic_attention(q, k, v, scale=8.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(astromorphic_attention(q, k, v, scale=8.0), plain)


def test_function_modes_see_one_operation() -> None:
    seen = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return func(*args, **(kwargs or {}))

    q, k, v = torch.randn(3, 1, 2, 30, 8).unbind()
    expected = astromorphic_attention(q, k, v, scale=8.0)
    with Watch():
        found = astromorphic_attention(q, k, v, scale=8.0)
    assert torch.equal(found, expected)
    assert seen == [astromorphic_attention]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scale": 0.0}, "scale must be above 0"), ({"scale": math.inf}, "scale must be above 0"),
        ({"alpha": -0.1}, "alpha must be at least 0"), ({"alpha": math.nan}, "alpha must be at least 0"),
        ({"nonlinearity": "sigmoid"}, "nonlinearity must be one of inside"),
    ],
)  # fmt: skip
def test_bad_options(wrong: dict[str, Any], message: str) -> None:
    q, k, v = torch.randn(3, 1, 2, 5, 4).unbind()
    for function in (astromorphic_attention, effective_attention):
        with pytest.raises(ValueError, match=message):
            function(q, k, v, **({"scale": 1.0} | wrong))


def test_too_few_positions() -> None:
    with pytest.raises(ValueError, match="positions for 5 tokens, not for 6"):
        position_keys(torch.randn(2, 3, 5), 6, 1.0)
