"""Time and peak memory of attention against the number of tokens, forward and backward.

Run ``python -m tests.benchmarks.bench_astromorphic --threads 2 --png docs/pictures/astromorphic_scaling.png``.

One sample, D = 192 in 3 heads, as ViT-tiny; queries, keys and values are given. Astromorphic attention computes its
position keys from M each time, as in training. Peak memory is the maximum that PyTorch allocates beyond its inputs.

With ``--layers`` whole layers from tokens to tokens are compared, with their projections, also with those of other
packages that are linear in length: ``pip install performer-pytorch linear-attention-transformer mambapy``. ``--width``
is D, in heads of 64.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from captum_astro.functional.astromorphic import astromorphic_attention
from captum_astro.functional.astromorphic_positions import position_keys
from captum_astro.models.astromorphic import AstromorphicAttention, SoftmaxAttention

HEADS, UNITS = 3, 64
READINGS = ("inside", "outside", "none")
SOFTMAX = "softmax"
PASSES = ("forward", "forward and backward")
FIT_FROM = 1024

Prepared = tuple[Callable[[], torch.Tensor], list[torch.Tensor]]
"""What is timed, and whose gradients are taken."""

Measured = dict[tuple[str, str], dict[int, tuple[float, float]]]


def attention(kind: str, tokens: int, device: str, causal: bool) -> Prepared:
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, HEADS, tokens, UNITS, device=device, requires_grad=True) for _ in range(3))
    if kind == SOFTMAX:
        return lambda: F.scaled_dot_product_attention(query, key, value, is_causal=causal), [query, key, value]
    memory = (torch.randn(HEADS, UNITS, tokens, device=device) * tokens ** (-1 / 3)).requires_grad_()

    def run() -> torch.Tensor:
        position = position_keys(memory, tokens, tokens**0.5)
        return astromorphic_attention(
            query, key, value, position, scale=float(UNITS), nonlinearity=kind, causal=causal
        )  # fmt: skip

    return run, [query, key, value, memory]


def performer(width: int, tokens: int) -> nn.Module:
    from performer_pytorch import SelfAttention

    return SelfAttention(dim=width, heads=width // UNITS, dim_head=UNITS)


def linear_attention(width: int, tokens: int) -> nn.Module:
    from linear_attention_transformer.linear_attention_transformer import SelfAttention

    return SelfAttention(width, width // UNITS)


def mamba(width: int, tokens: int) -> nn.Module:
    from mambapy.mamba import MambaBlock, MambaConfig

    return MambaBlock(MambaConfig(d_model=width, n_layers=1, expand_factor=1))  # which has as many weights as attention


LAYERS: dict[str, tuple[str, Callable[[int, int], nn.Module]]] = {
    "astromorphic": ("captum_astro", lambda width, tokens: AstromorphicAttention(width, width // UNITS, tokens)),
    "astromorphic, no sigma": (
        "captum_astro",
        lambda width, tokens: AstromorphicAttention(width, width // UNITS, tokens, nonlinearity="none"),
    ),
    "fused softmax": ("captum_astro", lambda width, tokens: SoftmaxAttention(width, width // UNITS)),
    "Performer (performer-pytorch)": ("performer_pytorch", performer),
    "linear attention (linear-attention-transformer)": ("linear_attention_transformer", linear_attention),
    "Mamba (mambapy)": ("mambapy", mamba),
}


def layer(kind: str, tokens: int, device: str, width: int) -> Prepared:
    torch.manual_seed(0)
    module = LAYERS[kind][1](width, tokens).to(device)
    x = torch.randn(1, tokens, width, device=device, requires_grad=True)
    return lambda: module(x), [x, *module.parameters()]


def once(run: Callable[[], torch.Tensor], inputs: list[torch.Tensor], backward: bool) -> None:
    if backward:
        run().sum().backward()
        for x in inputs:
            x.grad = None
    else:
        with torch.no_grad():
            run()


def seconds(step: Callable[[], None], device: str, least: float) -> float:
    """The median of runs over a minimum number of seconds, after two warm-up runs."""
    times: list[float] = []
    while len(times) < 5 or sum(times) < least:
        start = time.perf_counter()
        step()
        if device != "cpu":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return median(times[2:])


def peak_bytes(step: Callable[[], None], device: str) -> float:
    gc.collect()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    changes = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = np.cumsum([event.nbytes() for event in sorted(changes, key=lambda event: event.start_ns())])
    return float(held.max(initial=0))


def measure(
    kinds: list[str], prepare: Callable[[str, int], Prepared], lengths: list[int], device: str, least: float
) -> Measured:
    found: Measured = {}
    for tokens in lengths:
        for kind in kinds:
            for name in PASSES:
                run, inputs = prepare(kind, tokens)

                def step(run=run, inputs=inputs, backward=name != "forward") -> None:
                    once(run, inputs, backward)

                found.setdefault((kind, name), {})[tokens] = seconds(step, device, least), peak_bytes(step, device)
        print(f"n = {tokens} measured", flush=True)
    return found


def exponent(values: dict[int, float]) -> float:
    """The slope of a line through the logarithms, from 1,024 up."""
    kept = [(n, value) for n, value in values.items() if n >= FIT_FROM]
    if len(kept) < 2:
        return float("nan")
    return float(np.polyfit(*np.log(np.array(kept)).T, 1)[0])


def faster_from(ours: dict[int, float], theirs: dict[int, float]) -> int | None:
    """The smallest measured length from which astromorphic attention is faster at every length."""
    slower = [n for n in ours if ours[n] >= theirs[n]]
    return next((n for n in sorted(ours) if all(n > other for other in slower)), None)


def report(found: Measured, kinds: list[str], lengths: list[int]) -> None:
    for name in PASSES:
        for unit, index, factor in (("ms", 0, 1e3), ("MB", 1, 1e-6)):
            print(f"\n{name}, {unit}\n")
            print(f"| attention | {' | '.join(map(str, lengths))} | exponent from {FIT_FROM} |")
            print(f"|---|{'---|' * (len(lengths) + 1)}")
            for kind in kinds:
                values = {n: both[index] for n, both in found[kind, name].items()}
                cells = " | ".join(f"{values[n] * factor:.3g}" for n in lengths)
                print(f"| {labelled(kind)} | {cells} | {exponent(values):.2f} |")
        if SOFTMAX not in kinds:
            continue
        theirs = {n: both[0] for n, both in found[SOFTMAX, name].items()}
        for kind in READINGS:
            start = faster_from({n: both[0] for n, both in found[kind, name].items()}, theirs)
            where = "at no length measured" if start is None else f"from {start} tokens on"
            print(f"\n{labelled(kind)}: faster than softmax {where}.")


def labelled(kind: str) -> str:
    names = {SOFTMAX: "fused softmax", **{reading: f"astromorphic, sigma {reading}" for reading in READINGS}}
    return names.get(kind, kind)


def draw(found: Measured, kinds: list[str], lengths: list[int], file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.5), layout="constrained")
    for row, name in zip(figure.subplots(2, 2), PASSES, strict=True):
        for axes, label, index, factor in zip(row, ("ms", "peak MB"), (0, 1), (1e3, 1e-6), strict=True):
            for number, kind in enumerate(kinds):
                values = [found[kind, name][n][index] * factor for n in lengths]
                axes.loglog(lengths, values, marker="o", markersize=3, color=f"C{number}", label=labelled(kind), base=2)
            axes.set(title=name, xlabel="tokens", ylabel=label, xticks=lengths, xticklabels=lengths)
            axes.tick_params(axis="x", labelsize=8)
            axes.set_yscale("log", base=10)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), fontsize=8, ncols=3, loc="outside lower center")
    figure.savefig(file, dpi=110)


os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silence the profiler


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=16384, help="the longest sequence")
    parser.add_argument("--least", type=int, default=256, help="the shortest")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="number of CPU threads")
    parser.add_argument("--causal", action="store_true")
    parser.add_argument("--seconds", type=float, default=1.0, help="minimum time per measurement")
    parser.add_argument("--layers", action="store_true", help="whole layers, also those of other packages")
    parser.add_argument("--width", type=int, default=192, help="D of the layers, in heads of 64")
    parser.add_argument("--png", type=Path, help="the figure to write")
    given = parser.parse_args(words)
    if given.threads:
        torch.set_num_threads(given.threads)
    lengths = [2**power for power in range(4, 20) if given.least <= 2**power <= given.most]
    kinds = [*READINGS, SOFTMAX]
    prepare = partial(attention, device=given.device, causal=given.causal)
    if given.layers:
        kinds = [name for name, (package, _) in LAYERS.items() if find_spec(package)]
        prepare = partial(layer, device=given.device, width=given.width)
        for name in kinds:
            weights = sum(parameter.numel() for parameter in prepare(name, lengths[0])[1][1:])
            print(f"{name}: {weights:,} parameters at n = {lengths[0]}")
    found = measure(kinds, prepare, lengths, given.device, given.seconds)
    print(f"\nPyTorch {torch.__version__}, {given.device}, {torch.get_num_threads()} threads, causal: {given.causal}")
    report(found, kinds, lengths)
    if given.png:
        draw(found, kinds, lengths, given.png)


if __name__ == "__main__":
    main()
