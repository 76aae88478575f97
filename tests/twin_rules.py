"""Reference implementation of the propagation rules, operation by operation, for any model.

An independent way to the same relevance: the model is traced into ATen operations, and a loop over them, last to first,
applies each rule as in the paper. Positive parts are taken product by product, attention maps are formed, and nothing
from the package runs. One image at a time, float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.fx.experimental.proxy_tensor import make_fx

T = torch.Tensor
aten = torch.ops.aten
PASSED = (  # z+: norms, activations, dropout and the softmax pass relevance on unchanged
    aten.layer_norm.default, aten.rms_norm.default, aten.batch_norm.default, aten.gelu.default, aten.silu.default,
    aten.relu.default, aten.dropout.default, aten.softmax.int,
)  # fmt: skip
ACTIVATIONS = (aten.gelu.default, aten.silu.default, aten.relu.default)


class Trace:
    """A model's operations on one image, and their values.

    Args:
        model: In eval mode.
        image: ``(1, C, H, W)``.
        first: The module whose first argument is the tokens that enter the first layer.
    """

    def __init__(self, model: torch.nn.Module, image: T, first: torch.nn.Module) -> None:
        model.requires_grad_(False)
        entered: list[T] = []
        handle = first.register_forward_pre_hook(lambda m, a: entered.append(a[0]))
        with torch.no_grad():
            model(image)
            handle.remove()
            self.graph = make_fx(model, pre_dispatch=True)(image)
        self.values: dict[Any, Any] = {}
        self.moving: set[Any] = set()  # values that depend on the image, or on the tokens
        self.tokens: Any = None
        for node in self.graph.graph.nodes:
            if node.op == "placeholder":
                self.values[node], self.image, self.stem = image, node, None
                self.moving.add(node)
            elif node.op == "get_attr":
                self.values[node] = getattr(self.graph, node.target)
            elif node.op == "call_function":
                args, kwargs = self.given(node)
                if node.target is aten.add_.Tensor:
                    args = (args[0].clone(), args[1])  # the value before it is needed too
                with torch.no_grad():
                    self.values[node] = node.target(*args, **kwargs)
                sources = node.all_input_nodes[:1] if node.target is aten.type_as.default else node.all_input_nodes
                if any(n in self.moving for n in sources):
                    self.moving.add(node)
                    if self.stem is None and node.target in (aten.linear.default, aten.conv2d.default):
                        self.stem = node
                value = self.values[node]
                if isinstance(value, T) and value.shape == entered[0].shape and torch.equal(value, entered[0]):
                    self.tokens = node
            else:
                self.output = node.args[0]
        assert self.tokens is not None

    def given(self, node: Any) -> tuple[Any, Any]:
        """The arguments of an operation, as values."""
        return (
            torch.fx.node.map_arg(node.args, self.values.__getitem__),
            torch.fx.node.map_arg(node.kwargs, self.values.__getitem__),
        )

    def back(self, target: int, rule: Callable[..., Any]) -> dict[Any, T]:
        """The relevance at each operation, starting with 1 at the target's logit."""
        start = torch.zeros_like(self.values[self.output])
        start[0, target] = 1
        arrived: dict[Any, Any] = {self.output: start}
        for node in reversed(self.graph.graph.nodes):
            if node.op != "call_function" or node not in arrived:
                continue
            for source, part in rule(self, node, arrived[node]):
                if source in self.moving:
                    arrived[source] = added(arrived[source], part) if source in arrived else part
        return arrived

    def both(self, node: Any) -> bool:
        """Whether the first two arguments depend on the image."""
        return len(node.args) > 1 and node.args[0] in self.moving and node.args[1] in self.moving


def added(a: Any, b: Any) -> Any:
    """Two tensors, or two tuples of them."""
    return tuple(x + y for x, y in zip(a, b, strict=True)) if isinstance(a, tuple) else a + b


Parts = list[tuple[Any, Any]]  # the share of each argument; one may occur twice


def moved(trace: Trace, node: Any, arrived: Any) -> Parts:
    """An operation that moves values, or any exact gradient: the transpose of the operation."""
    if node.target.__name__ == "getitem":
        whole = [torch.zeros_like(v) for v in trace.values[node.args[0]]]
        whole[node.args[1]] = arrived
        return [(node.args[0], tuple(whole))]
    sources = [n for n in node.all_input_nodes if n in trace.moving]
    with torch.enable_grad():
        leaves = {n: trace.values[n].detach().clone().requires_grad_(True) for n in sources}
        look = {**trace.values, **leaves}
        args, kwargs = (torch.fx.node.map_arg(a, look.__getitem__) for a in (node.args, node.kwargs))
        if node.target is aten.add_.Tensor:
            args = (args[0].clone(), args[1])
        out = node.target(*args, **kwargs)
        outs, grads = (list(x) if isinstance(x, tuple | list) else [x] for x in (out, arrived))
        if not outs[0].requires_grad:
            return []
        parts = torch.autograd.grad(outs, list(leaves.values()), grads, allow_unused=True)
    return [(n, part) for n, part in zip(leaves, parts, strict=True) if part is not None]


def quotient(relevance: T, total: T) -> T:
    """0 where the total is 0."""
    return torch.where(total == 0, 0.0, relevance / torch.where(total == 0, 1.0, total))


def shares(a: T, b: T, r: T) -> tuple[T, T]:
    """A residual add: ``a / (a + b) r``, each rescaled to its share of the sizes."""
    whole = torch.broadcast_to(a, r.shape), torch.broadcast_to(b, r.shape)
    ra, rb = (quotient(r, a + b) * x for x in whole)
    sizes = ra.sum().abs() + rb.sum().abs()
    out = []
    for part, like in ((ra, a), (rb, b)):
        scaled = part * (part.sum().abs() / sizes * r.sum() / part.sum()) if part.sum() != 0 else part * 0
        out.append(scaled.sum_to_size(like.shape))
    return out[0], out[1]


def z_plus(x: T, weight: T, r: T) -> T:
    """``R_i = sum_j (x_i w_ij)^+ / sum_i' (x_i' w_i'j)^+ R_j``, for vectors ``(..., i)``."""
    flat, out = x.reshape(-1, x.shape[-1]), r.reshape(-1, r.shape[-1])
    back = torch.zeros_like(flat)
    for p in range(len(flat)):
        positive = (flat[p] * weight).clamp(min=0)  # (j, i)
        back[p] = (quotient(positive, positive.sum(1, keepdim=True).expand_as(positive)) * out[p][:, None]).sum(0)
    return back.reshape(x.shape)


def by_sign(x: T, weight: T, r: T) -> T:
    """``z_plus`` with a sum for each sign of the input, for vectors ``(..., i)``."""
    back = torch.zeros_like(x)
    for sign in (1, -1):
        back += z_plus((sign * x).clamp(min=0), sign * weight, r)
    return back


def windows(trace: Trace, node: Any) -> tuple[T, T, Any]:
    """A linear map, or a convolution as one: its inputs ``(p, i)``, its weight ``(j, i)``, and how they were cut."""
    if node.target is aten.linear.default:
        return trace.values[node.args[0]][0], trace.values[node.args[1]], None
    given = dict(zip(("x", "weight", "bias", "stride", "padding", "dilation"), trace.given(node)[0], strict=False))
    how = {"kernel_size": given["weight"].shape[2:], "stride": given.get("stride", 1)}
    how |= {"padding": given.get("padding", 0), "dilation": given.get("dilation", 1)}
    return F.unfold(given["x"], **how)[0].T, given["weight"].flatten(1), how


def attended(trace: Trace, node: Any) -> tuple[T, T, T, T, float]:
    """Query, key, value ``(H, n, d)``, the map ``(H, n, n)`` and the scale of one fused attention."""
    (q, k, v, *rest), kwargs = trace.given(node)
    scale = kwargs.get("scale") or q.shape[-1] ** -0.5
    bias = rest[0] if rest and rest[0] is not None else kwargs.get("attn_mask", torch.zeros(1, dtype=q.dtype))
    bias = torch.broadcast_to(bias, (1, q.shape[1], q.shape[2], k.shape[2]))[0]
    q, k, v = q[0], k[0], v[0]
    scores = torch.stack([q[h] @ k[h].T * scale for h in range(len(q))])
    return q, k, v, (scores + bias).softmax(-1), scale


class DeepTaylor:
    """The rules of LRP (z+). ``maps`` keeps the relevance of every attention map, last layer first."""

    def __init__(self) -> None:
        self.maps: list[T] = []

    def __call__(self, trace: Trace, node: Any, r: Any) -> Parts:
        """The share of an operation's relevance for each argument."""
        f, args = node.target, node.args
        if f is aten.conv2d.default or node is trace.stem:
            return [(args[0], self.stem(trace, node, r))]
        if f is aten.linear.default:
            return [(args[0], self.linear(trace.values[args[0]], trace.values[args[1]], r))]
        if f is aten.scaled_dot_product_attention.default:
            q, k, v, a, _ = attended(trace, node)
            ra, rv = self.product(a, v, r[0])
            self.maps.append(ra)
            rq, rk = self.product(q, k.transpose(1, 2), ra, [n in trace.moving for n in args[:2]])
            return [(args[0], rq[None]), (args[1], rk.transpose(1, 2)[None]), (args[2], rv[None])]
        if f is aten.matmul.default:
            ra, rb = self.product(trace.values[args[0]], trace.values[args[1]], r)
            return [(args[0], ra), (args[1], rb)]
        if f is aten.softmax.int:
            self.maps.append(r[0])
        if f in PASSED:
            return [(args[0], r)]
        if f in (aten.add.Tensor, aten.add_.Tensor, aten.sub.Tensor):
            a, b = (torch.as_tensor(trace.values.get(n, n) if isinstance(n, torch.fx.Node) else n) for n in args[:2])
            ra, rb = self.shares(a, -b if f is aten.sub.Tensor else b, r)
            return list(zip(args[:2], (ra, rb), strict=True))
        if f is aten.mul.Tensor and trace.both(node):
            return [(n, (r / 2).sum_to_size(trace.values[n].shape)) for n in args[:2]]
        if f in (aten.mul.Tensor, aten.div.Tensor):
            moving = args[0] if args[0] in trace.moving else args[1]
            return [(moving, r)]
        if f is aten.neg.default:
            return [(args[0], r)]
        if f in (aten.mean.dim, aten.sum.dim_IntList):
            x, keep = trace.values[args[0]], len(args) > 2 and args[2]
            for dim in [] if keep else sorted(d % x.ndim for d in args[1]):
                r = r.unsqueeze(dim)
            return [(args[0], x * quotient(r, x.sum(args[1], keepdim=True)).expand_as(x))]
        return moved(trace, node, r)

    @staticmethod
    def product(a: T, b: T, r: T, moving: Any = (True, True)) -> tuple[T, T]:
        """A matrix product, half to each factor that is not constant."""
        s = quotient(r, a @ b) / sum(moving)
        return a * (s @ b.transpose(-2, -1)), b * (a.transpose(-2, -1) @ s)

    linear = staticmethod(z_plus)
    shares = staticmethod(shares)

    def stem(self, trace: Trace, node: Any, r: T) -> T:
        """z+, or z^B at the pixels; zero padding added by a convolution gets no share."""
        image = trace.values[node.args[0]]
        x, weight, how = windows(trace, node)
        out = r.flatten(2)[0].T if r.ndim == 4 else r[0]
        back: T = self.linear(x, weight, out)
        if node is trace.stem:
            inside = torch.ones_like(image) if how is None else F.unfold(torch.ones_like(image), **how)[0].T
            for p in range(len(x)):
                z = x[p] * weight - inside.reshape(x.shape)[p] * (
                    image.min() * weight.clamp(min=0) + image.max() * weight.clamp(max=0)
                )
                back[p] = (z / z.sum(1, keepdim=True) * out[p][:, None]).sum(0)
        return back.reshape(image.shape) if how is None else F.fold(back.T[None], image.shape[-2:], **how)


class Original(DeepTaylor):
    """The older rules of LRP: a sum for each sign, and residual adds without normalisation."""

    linear = staticmethod(by_sign)

    @staticmethod
    def shares(a: T, b: T, r: T) -> tuple[T, T]:
        """``a / (a + b) r``."""
        s = quotient(r, a + b)
        return (a * s).sum_to_size(a.shape), (b * s).sum_to_size(b.shape)


class Gradients:
    """The rules that modify gradients: AttnLRP if ``attn``, otherwise Conservative LRP."""

    def __init__(self, attn: bool) -> None:
        self.attn = attn

    def __call__(self, trace: Trace, node: Any, g: Any) -> Parts:
        """The modified gradient at each argument of an operation."""
        f, args = node.target, node.args
        if f is aten.scaled_dot_product_attention.default:
            return self.fused(trace, node, g[0])
        if f in (aten.layer_norm.default, aten.rms_norm.default):
            return [(args[0], self.norm(trace, node, g))]
        if f in ACTIVATIONS and self.attn:
            return [(args[0], g * quotient(trace.values[node], trace.values[args[0]]))]
        if f is aten.softmax.int and not self.attn:
            return []
        parts = moved(trace, node, g)
        weights = f is aten.matmul.default and args[0].target is aten.dropout.default and not self.attn
        if f in (aten.mul.Tensor, aten.matmul.default) and trace.both(node) and not weights:
            return [(n, part / 2) for n, part in parts]
        return parts

    def fused(self, trace: Trace, node: Any, g: T) -> Parts:
        """Attention weights are constants, or products are split in halves and the softmax keeps its gradient."""
        q, k, v, a, scale = attended(trace, node)
        half = 0.5 if self.attn else 1.0
        parts = [(node.args[2], half * (a.transpose(1, 2) @ g)[None])]
        if self.attn:
            of_map = 0.5 * g @ v.transpose(1, 2)
            scores = torch.zeros_like(a)
            for h in range(len(a)):
                for i in range(a.shape[1]):
                    scores[h, i] = a[h, i] * (of_map[h, i] - (a[h, i] * of_map[h, i]).sum())
            share = scale / sum(n in trace.moving for n in node.args[:2])
            parts.append((node.args[0], share * (scores @ k)[None]))
            parts.append((node.args[1], share * (scores.transpose(1, 2) @ q)[None]))
        return parts

    @staticmethod
    def norm(trace: Trace, node: Any, g: T) -> T:
        """A norm with a constant standard deviation."""
        x, _, weight, *rest = trace.given(node)[0]
        centred = node.target is aten.layer_norm.default
        eps = rest[1] if centred else rest[0]
        around = x - x.mean(-1, keepdim=True) if centred else x
        scaled = g * weight / (around.pow(2).mean(-1, keepdim=True) + eps).sqrt()
        return scaled - scaled.mean(-1, keepdim=True) if centred else scaled


class Balanced(Gradients):
    """The rules of LibraGrad: attention weights, deviations and gates are constants, products are split in halves."""

    def __init__(self) -> None:
        super().__init__(attn=False)

    def __call__(self, trace: Trace, node: Any, g: Any) -> Parts:
        """The modified gradient at each argument of an operation."""
        if node.target in ACTIVATIONS:
            return [(node.args[0], g * quotient(trace.values[node], trace.values[node.args[0]]))]
        return super().__call__(trace, node, g)


class AttentionGradients:
    """Exact gradients; ``maps`` stores those of every attention map, last layer first."""

    def __init__(self) -> None:
        self.maps: list[T] = []

    def __call__(self, trace: Trace, node: Any, g: Any) -> Parts:
        """The gradient at each argument of an operation."""
        if node.target is aten.scaled_dot_product_attention.default:
            _, _, v, _, _ = attended(trace, node)
            self.maps.append(g[0] @ v.transpose(1, 2))
        if node.target is aten.softmax.int:
            self.maps.append(g[0])
        return moved(trace, node, g)


def transformer_attribution(maps: list[T], gradients: list[T], parts: list[int], pooling: Any, readout: T) -> T:
    """``C = U_L ... U_1`` with ``U = I + E_h[(R_A * dA)^+]``; the read-out's row of it ``(n,)``.

    Args:
        maps: ``R_A`` ``(H, q, n)``, last layer first.
        gradients: ``dy/dA``, likewise.
        parts: How many maps each residual add has, first layer first.
        pooling: How a pooling head reads its queries, as weights, and its first token; None without one.
        readout: ``(n,)``.
    """
    updates = [torch.zeros_like(r[0]) for r in maps]
    for update, r, g in zip(updates, maps, gradients, strict=True):
        for h in range(len(r)):
            for i in range(r.shape[1]):
                update[i] += (r[h, i] * g[h, i]).clamp(min=0) / len(r)
    updates.reverse()
    row = readout
    if pooling is not None:
        weights, first = pooling
        row = F.pad(weights @ updates.pop(), (first, 0))
    product = torch.eye(len(row), dtype=row.dtype)
    for count in parts:
        product = (torch.eye(len(row), dtype=row.dtype) + sum(updates.pop(0) for _ in range(count))) @ product
    assert not updates
    return row @ product
