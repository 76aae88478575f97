"""Time every method relative to forward + input-backward, alternated in one run; prints a Markdown table.

python -m tests.benchmarks.bench_methods [--model vit_base_patch16_224] [--batch 4] [--rounds 5] [--device cpu]
    [--method VTranM ProjectedFlow]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import timm
import torch

from captum_astro import ViTAGradCAM
from captum_astro.attr.explainers import explainers_named
from tests.benchmarks.bench_vtranm import floor


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--method", nargs="+", default=["all"])
    args = parser.parse_args()
    model = timm.create_model(args.model).eval().requires_grad_(False).to(args.device)
    x = torch.randn(args.batch, *model.default_cfg["input_size"]).to(args.device)
    target = torch.arange(args.batch, device=args.device)
    runs: dict[str, Callable[[], torch.Tensor]] = {"forward + input-backward": lambda: floor(model, x, target)}
    for explainer in explainers_named(args.method).values():
        if issubclass(explainer.method, ViTAGradCAM):
            continue  # TokenGradCAM on another model
        method = explainer.method(model)
        runs[explainer.name] = lambda method=method: method.attribute(x, target=target)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(args.rounds + 1):
        for name, run in runs.items():
            if args.device != "cpu":
                torch.cuda.synchronize()
            start = time.perf_counter()
            run()
            if args.device != "cpu":
                torch.cuda.synchronize()
            if round_:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    base = times["forward + input-backward"]
    print(f"{args.model}, batch {args.batch}, {args.device}, median of {args.rounds} rounds\n")
    print("| method | seconds | over forward + input-backward |\n|---|---|---|")
    for name, values in times.items():
        ratio = statistics.median(value / other for value, other in zip(values, base, strict=True))
        print(f"| {name} | {statistics.median(values):.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
