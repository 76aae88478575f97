"""Compare AttnLRP, ConservativeLRP and LRP with hilrp, the LRP of hierarchical Vision Transformers; prints a table.

pip install hilrp; python -m tests.benchmarks.bench_hilrp [--models pvt_v2_b0 ...] [--rounds 3] [--batches 1 8]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F

from captum_astro import LRP, AttnLRP, ConservativeLRP

MODELS = ("swin_tiny_patch4_window7_224", "pvt_v2_b0", "maxvit_tiny_rw_224", "mobilevitv2_050")
METHODS = (AttnLRP, ConservativeLRP, LRP)
GAMMAS = {"hilrp": 0.25, "hilrp, gamma 0": 0.0}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", nargs="+", type=int, default=(1, 8))
    args = parser.parse_args()
    seconds = " | ".join(f"s, batch {batch}" for batch in args.batches)
    print(f"| model | method | correlation with hilrp | with gamma 0 | sum / output | {seconds} |")
    print("|---" * (5 + len(args.batches)) + "|")
    for name in args.models:
        for row in compared(name, args.rounds, args.batches):
            print(f"| {' | '.join(row)} |", flush=True)


def compared(name: str, rounds: int, batches: Sequence[int]) -> list[list[str]]:
    """The rows of a model."""
    model = drawn(name)
    x = torch.randn(max(batches), *model.default_cfg["input_size"])
    target = int(model(x[:1]).argmax())

    def times(run: Callable[[torch.Tensor], Any]) -> list[str]:
        return [f"{median(run, x[:batch], rounds):.2f}" for batch in batches]

    found, rows = {}, []
    for method in METHODS:  # before hilrp, which patches timm's classes for good
        explain = method(model)
        parts = explain.conservation(x[:1], target)
        own = explain.attribute(x[:1], target=target, attribute_to="pixels")
        seconds = times(lambda part, explain=explain: explain.attribute(part, target=target))
        found[method.__name__] = own, parts.pixels, seconds
    import hilrp

    def peer(part: torch.Tensor, gamma: float = 0.25) -> list[Any]:
        return [hilrp.attribute(model, image, target=target, arch=name, gamma=gamma) for image in part.split(1)]

    theirs = {title: peer(x[:1], gamma)[0] for title, gamma in GAMMAS.items()}
    for title, (own, share, seconds) in found.items():
        near = [f"{correlation(own, result['pixel_map']):.3f}" for result in theirs.values()]
        rows.append([name, title, *near, f"{share:.3f}", *seconds])
    for title, result in theirs.items():
        share = result["pixel_map"].sum().item() / result["logit"]
        rows.append([name, title, "", "", f"{share:.3f}", *times(peer)])
    return rows


def drawn(name: str) -> torch.nn.Module:
    """A model in which no bias and no scale is zero, so that its branches count."""
    torch.manual_seed(0)
    model = timm.create_model(name).eval().requires_grad_(False)
    for parameter in model.parameters():
        if not parameter.any():
            parameter.normal_(0, 0.02)
    return model


def median(run: Callable[[torch.Tensor], Any], x: torch.Tensor, rounds: int) -> float:
    """Seconds of a call, after one to warm up."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        run(x)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    """Pearson's, of two maps summed over cells of 8 x 8 pixels."""
    cells = [F.avg_pool2d(x.double().reshape(1, 1, *x.shape[-2:]), 8).flatten() for x in (one, other)]
    return float(torch.corrcoef(torch.stack(cells))[0, 1])


if __name__ == "__main__":
    main()
