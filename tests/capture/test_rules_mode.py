"""The rules of single operations, as models write them, against the linear map that each rule holds in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from timm.layers import QuickGELU
from timm.layers.activations import HardMish, HardSigmoid
from timm.layers.grn import GlobalResponseNorm
from torch import nn

from captum_astro import UnsupportedModelError
from captum_astro.capture.gradient_rules import ConstantWeights, SharedGradients
from captum_astro.capture.relevance_rules import Relevance

T = torch.Tensor


def _weight(*shape: int) -> T:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


W, SIX, KERNEL, UP = _weight(4, 4), _weight(6, 6), _weight(4, 4, 3, 3), _weight(4, 2, 3, 3)


class Case(NamedTuple):
    """An operation on features ``(2, 4, 6, 6)``, and its linear map, which may read the constants ``z``."""

    written: Callable[[T], T]
    held: Callable[[T, T], T] | None = None  # of the features and the constants; None: the operation is linear


def _squeezed(x: T) -> T:
    return F.linear(x.mean((2, 3)), W)[..., None, None]


def _in_place(x: T) -> T:
    gate = _squeezed(x)
    gate.sigmoid_()
    y = x * 1.0
    y.mul_(gate)
    return y


def _used_after_in_place(x: T) -> T:
    y = x * 1.0
    F.relu(y, inplace=True)
    return y * 2  # of what the activation left in y


def _condconv(x: T) -> T:
    routing = torch.sigmoid(F.linear(x.mean((2, 3)), W))
    kernels = torch.matmul(routing, KERNEL.flatten(1)[:, :9])  # (2, 9)
    return F.conv2d(x.reshape(1, 8, 6, 6), kernels.repeat_interleave(4, 0).reshape(8, 1, 3, 3), groups=8)


def _held_condconv(x: T, z: T) -> T:
    kernels = torch.sigmoid(F.linear(z.mean((2, 3)), W)) @ KERNEL.flatten(1)[:, :9]
    return torch.cat(
        [F.conv2d(x[i : i + 1], kernels[i].reshape(1, 1, 3, 3).expand(4, -1, -1, -1), groups=4) for i in range(2)], 1
    )


def _linear_attention(x: T) -> T:
    q, v = F.relu(x.flatten(2)).transpose(1, 2), x.flatten(2).transpose(1, 2)
    return (q @ (q.transpose(1, 2) @ v)) / (q @ q.sum(1)[..., None] + 1e-6)


def _held_linear_attention(x: T, z: T) -> T:
    """The average over the factors of what one of them moves and the others hold."""
    (q, v), (a, b) = ((F.relu(t.flatten(2)).transpose(1, 2), t.flatten(2).transpose(1, 2)) for t in (z, x))
    a = torch.where(q > 0, b, 0)  # of the moving features
    moved = a @ (q.transpose(1, 2) @ v) / 2 + q @ (a.transpose(1, 2) @ v + q.transpose(1, 2) @ b) / 4
    return moved / (q @ q.sum(1)[..., None] + 1e-6)


LSTM = nn.LSTM(6, 3, bias=False, batch_first=True, bidirectional=True).double().requires_grad_(False)


def _held_lstm(x: T, z: T) -> T:
    """What moves, step by step, beside what is held: the gates, and the ratio of each tanh to its argument."""
    (x, z), directions = (t.flatten(1, 2).movedim(1, 0) for t in (x, z)), []
    for into, across in (LSTM._flat_weights[:2], LSTM._flat_weights[2:]):
        order = range(24) if not directions else range(23, -1, -1)
        hidden, cell, held_hidden, held_cell = (torch.zeros(2, 3, dtype=torch.float64) for _ in range(4))
        outputs = {}
        for step in order:
            write, keep, new, read = (z[step] @ into.T + held_hidden @ across.T).chunk(4, -1)
            moving = (x[step] @ into.T + hidden @ across.T).chunk(4, -1)[2]
            held_cell = keep.sigmoid() * held_cell + write.sigmoid() * new.tanh()
            cell = keep.sigmoid() * cell + write.sigmoid() * new.tanh() / new * moving
            held_hidden = read.sigmoid() * held_cell.tanh()
            outputs[step] = hidden = read.sigmoid() * held_cell.tanh() / held_cell * cell
        directions.append(torch.stack([outputs[step] for step in range(24)], 1))
    return torch.cat(directions, -1)


def _layer_norm(x: T) -> T:
    return (x - x.mean(1, keepdim=True)) / torch.sqrt(x.var(1, keepdim=True, unbiased=False) + 1e-5)


def _grn(module: GlobalResponseNorm) -> Callable[[T, T], T]:
    def held(x: T, z: T) -> T:
        def size(t: T) -> T:
            return t.norm(2, (1, 2), keepdim=True)

        mean = size(z).mean(-1, keepdim=True) + module.eps
        moving = (z * x).sum((1, 2), keepdim=True) / size(z)
        return x + module.weight * (x * size(z) + z * moving) / 2 / mean

    return held


MODULES = nn.ModuleList([HardSigmoid(), QuickGELU(), HardMish()])
GRN = GlobalResponseNorm(6, channels_last=True).double()
nn.init.normal_(GRN.weight)
GRN.requires_grad_(False)
POOLS: dict[str, Callable[[T], T]] = {
    "cumsum": lambda x: x.cumsum(2),
    "fold": lambda x: F.fold(F.unfold(x, 3, padding=1), 6, 3, padding=1),
    "resize": lambda x: F.interpolate(x, (9, 4), mode="bicubic"),
    "sum": lambda x: torch.sum(x, (2, 3)),
    "adaptive average": lambda x: F.adaptive_avg_pool2d(x, (4, 5)),
}
MOVES: dict[str, Callable[[T], T]] = {
    "max pool": nn.MaxPool2d(3, 2),
    "adaptive max": lambda x: F.adaptive_max_pool2d(x, 2),
    "amax": lambda x: x.amax((2, 3)),
    "max": lambda x: x.flatten(2).max(-1)[0],
    "pixel shuffle": lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 3),
    "windows": lambda x: F.pad(x.roll((1, 2), (2, 3)).unfold(2, 3, 3).unfold(3, 3, 3), (0, 1)),
    "concatenation": lambda x: torch.cat([x.flip(2), x[:, 1:], torch.stack([x[:, 0], x[:, 2]], 1)], 1),
    "indexing": lambda x: x[:, torch.tensor([2, 0])].index_select(2, torch.tensor([1, 1, 4])),
}
LINEAR: dict[str, Callable[[T], T]] = {
    "convolution": lambda x: F.conv2d(x, KERNEL, None, 2, 1),
    "padded by name": lambda x: F.conv2d(x, KERNEL, padding="same", dilation=2),
    "depthwise": lambda x: F.conv2d(x, KERNEL[:, :1], groups=4),
    "transposed": lambda x: F.conv_transpose2d(x, UP, None, 2, 1, 1),
    "one dimension": lambda x: F.conv1d(x.flatten(2), KERNEL[..., 0], padding=1),
    "three dimensions": lambda x: F.conv3d(x[:, None], KERNEL[:1, :1, None]),
    "linear": lambda x: F.linear(x.movedim(1, -1), W),
    "weights on the right": lambda x: torch.matmul(x.movedim(1, -1), nn.Parameter(W, requires_grad=False)),
}
CASES: dict[str, Case] = {name: Case(written) for name, written in (POOLS | MOVES | LINEAR).items()} | {
    "square": Case(torch.square, lambda x, z: z * x),
    "cube": Case(lambda x: x**3, lambda x, z: z**2 * x),
    "root": Case(lambda x: x.abs().sqrt(), lambda x, z: z.abs().sqrt() / z * x),
    "generalised mean": Case(
        lambda x: x.abs().pow(3.0).mean((2, 3)).pow(1 / 3),
        lambda x, z: z.abs().pow(3).mean((2, 3)).pow(-2 / 3) * (z.abs().pow(3) / z * x).mean((2, 3)),
    ),
    "variance": Case(
        lambda x: x.var(1, unbiased=False),
        lambda x, z: ((z - z.mean(1, keepdim=True)) * (x - x.mean(1, keepdim=True))).mean(1),
    ),
    "norm by hand": Case(
        _layer_norm,
        lambda x, z: (x - x.mean(1, keepdim=True)) / (z.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt(),
    ),
    "RMS norm by hand": Case(
        lambda x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-5),
        lambda x, z: x / (z.pow(2).mean(1, keepdim=True) + 1e-5).sqrt(),
    ),
    "reciprocal": Case(
        lambda x: x * (1 / (x.std(1, keepdim=True) + 1)), lambda x, z: x / (z.std(1, keepdim=True) + 1)
    ),
    "normalised": Case(F.normalize, lambda x, z: x / z.norm(2, 1, keepdim=True)),
    "layer norm of an image": Case(
        lambda x: F.layer_norm(x, (4, 6, 6)),
        lambda x, z: (x - x.mean((1, 2, 3), keepdim=True)) / (z.var((1, 2, 3), False, keepdim=True) + 1e-5).sqrt(),
    ),
    "response norm": Case(GRN, _grn(GRN)),
    "squeeze and excite": Case(lambda x: x * _squeezed(x).sigmoid(), lambda x, z: x * _squeezed(z).sigmoid()),
    "in place": Case(_in_place, lambda x, z: x * _squeezed(z).sigmoid()),
    "used after an in-place activation": Case(_used_after_in_place, lambda x, z: 2 * torch.where(z > 0, x, 0)),
    "gate moved": Case(
        lambda x: F.interpolate((1 - F.hardsigmoid(x[..., :3, :3])) / 2, (6, 6)).expand_as(x) * x,
        lambda x, z: F.interpolate((1 - F.hardsigmoid(z[..., :3, :3])) / 2, (6, 6)) * x,
    ),
    "timm's hard sigmoid": Case(lambda x: x * MODULES[0](x), lambda x, z: x * F.hardsigmoid(z)),
    "gated linear unit": Case(lambda x: F.glu(x, 1), lambda x, z: x[:, :2] * z[:, 2:].sigmoid()),
    "dynamic convolution": Case(_condconv, _held_condconv),
    "sigmoid as an activation": Case(
        lambda x: x + F.linear(x.sigmoid(), SIX),
        lambda x, z: x + F.linear((z.sigmoid() - 0.5) / z * x, SIX),
    ),
    "product": Case(
        lambda x: x[:, :2] * x[:, 2:].tanh(),
        lambda x, z: (x[:, :2] * z[:, 2:].tanh() + z[:, :2] * z[:, 2:].tanh() / z[:, 2:] * x[:, 2:]) / 2,
    ),
    "product of three": Case(
        lambda x: torch.einsum("bhw,bhw,bwv->bhv", x[:, 0], x[:, 1], x[:, 2]),
        lambda x, z: sum(
            torch.einsum("bhw,bhw,bwv->bhv", *(x[:, i] if i == moving else z[:, i] for i in range(3)))
            for moving in range(3)
        ) / 3,
    ),
    "product and sum": Case(
        lambda x: torch.addcmul(x[:, :1], x[:, 1:2], x[:, 2:3], value=2),
        lambda x, z: x[:, :1] + x[:, 1:2] * z[:, 2:3] + z[:, 1:2] * x[:, 2:3],
    ),
    "LSTM": Case(lambda x: LSTM(x.flatten(1, 2))[0], _held_lstm),
    "linear attention": Case(_linear_attention, _held_linear_attention),
}  # fmt: skip

CURVED = {"sigmoid as an activation"}  # whose value at 0 is a constant


def _features() -> T:
    return torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mode", [SharedGradients, ConstantWeights])
def test_gradient_rules(mode: Any, name: str) -> None:
    case, x = CASES[name], _features()
    leaf = x.clone().requires_grad_(True)
    with mode(MODULES):
        got = case.written(leaf)
    torch.testing.assert_close(got, case.written(x), rtol=1e-12, atol=1e-12)
    start = torch.randn(got.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(got, leaf, start)
    if name in ("product", "LSTM") and mode is ConstantWeights:
        return  # tanh keeps its slope
    held = case.held or (lambda x, z: case.written(x))
    jacobian = torch.autograd.functional.jacobian(lambda t: held(t, x), x)
    expected = torch.einsum("i,ijk->jk", start.flatten(), jacobian.reshape(start.numel(), 2, -1)).reshape(x.shape)
    torch.testing.assert_close(gradient, expected, rtol=1e-10, atol=1e-10)
    if name not in CURVED:
        torch.testing.assert_close((gradient * x).sum(), (start * got).sum(), rtol=1e-9, atol=1e-9)


ACTIVATIONS = [nn.ReLU(), nn.GELU(), nn.Hardswish(), nn.Tanh(), nn.PReLU(), nn.Hardtanh(-1, 2, True), *MODULES[1:]]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda a: type(a).__name__)
def test_activations(activation: nn.Module) -> None:
    """Those with f(0) = 0: AttnLRP passes relevance on unchanged, Conservative LRP keeps the slope, LRP as AttnLRP."""
    activation, x = activation.double().requires_grad_(False), _features()
    leaf = x.clone().requires_grad_(True)
    output = activation(leaf.clone())
    (slope,) = torch.autograd.grad(output.sum(), leaf)
    for mode, expected in ((SharedGradients, output / x), (ConstantWeights, slope), (Relevance, torch.ones_like(x))):
        given = (2, False) if mode is Relevance else ()
        with mode(MODULES, *given):
            y = activation(leaf.clone())
        torch.testing.assert_close(y, output)
        torch.testing.assert_close(torch.autograd.grad(y.sum(), leaf)[0], expected, rtol=1e-12, atol=1e-12)


# a margin of zeros takes its share; layers have their own test, and an LSTM has some; three factors have no rule
APART = {*LINEAR, *CURVED, "windows", "LSTM", "product of three"}


@pytest.mark.parametrize("name", [name for name in CASES if name not in APART])
def test_relevance_is_conserved(name: str) -> None:
    x = _features()
    leaf = x.clone().requires_grad_(True)
    with Relevance(MODULES, 2, from_pixels=False):
        got = CASES[name].written(leaf)
    torch.testing.assert_close(got, CASES[name].written(x), rtol=1e-12, atol=1e-12)
    start = torch.randn(got.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    start = start * (got.detach() != 0)  # nothing contributed to a zero
    (relevance,) = torch.autograd.grad(got, leaf, start)
    torch.testing.assert_close(relevance.sum(), start.sum(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LINEAR)
def test_layers_follow_z_plus(name: str) -> None:
    """As if written as a matrix: ``R_i = sum_j (x_i w_ij)^+ / sum_i' (x_i' w_i'j)^+ R_j``."""
    x = _features()
    leaf = x.clone().requires_grad_(True)
    with Relevance(MODULES, 2, from_pixels=False):
        got = LINEAR[name](leaf)
    start = torch.randn(got.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (relevance,) = torch.autograd.grad(got, leaf, start)
    matrix = torch.autograd.functional.jacobian(LINEAR[name], x).reshape(got.numel(), x.numel())
    expected = torch.zeros(x.numel(), dtype=torch.float64)
    for row, arrived in zip(matrix * x.flatten(), start.flatten(), strict=True):
        positive = row.clamp(min=0)
        if positive.any():
            expected += positive / positive.sum() * arrived
    torch.testing.assert_close(relevance.flatten(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mode", [SharedGradients, ConstantWeights, Relevance])
@pytest.mark.parametrize(
    ("name", "written"),
    {
        "exp": torch.exp,
        "rsqrt": lambda x: x + torch.rsqrt(x.abs()),
        "erf": lambda x: x + torch.erf(x),
        "pow": lambda x: 2**x,
        "cdist": lambda x: torch.cdist(x, x.flip(1)),
    }.items(),
    ids=lambda case: case if isinstance(case, str) else "",
)  # fmt: skip
def test_an_operation_without_a_rule_is_named(mode: Any, name: str, written: Callable[[T], T]) -> None:
    leaf = _features().requires_grad_(True)

    def propagate() -> None:
        with mode(MODULES, *((2, False) if mode is Relevance else ())):
            y = written(leaf)
        torch.autograd.grad(y.sum(), leaf)

    with pytest.raises(UnsupportedModelError, match=f"{name}.*has no propagation rule here"):
        propagate()
