"""The cost of perturbation curves, compared with the bare forward passes and with Quantus' PixelFlipping.

Run ``python -m tests.benchmarks.bench_perturbation``; ``--help`` lists its options. On a busy machine read the CPU
time, with ``--threads 1``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
import warnings
from collections.abc import Callable
from statistics import median

import numpy as np
import timm
import torch
from torch import nn

from captum_astro.data.scenes import Scenes, batch
from captum_astro.data.transforms import ModelTransform
from captum_astro.metrics.perturbation import area_under_curve, class_probability
from captum_astro.metrics.perturber import Perturber
from captum_astro.metrics.removal import removal_masks
from captum_astro.models import bundled

Seconds = list[tuple[float, float]]  # wall clock and processor, of each round


def alternated(parts: dict[str, Callable[[], object]], rounds: int) -> dict[str, Seconds]:
    """Times of alternating runs; the first round is a warm-up."""
    found: dict[str, Seconds] = {name: [] for name in parts}
    for turn in range(rounds + 1):
        for name, part in parts.items():
            wall, processor = time.perf_counter(), time.process_time()
            part()
            if turn:
                found[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return found


def ratio(a: Seconds, b: Seconds, which: int) -> float:
    """The median over the rounds of b's time over a's, by wall clock (0) or processor (1)."""
    return median(other[which] / one[which] for one, other in zip(a, b, strict=True))


def forwards(name: str, maps: int, batch_size: int, rounds: int) -> None:
    """Both curves of some maps, and the model on the same images, precomputed, in the same batches."""
    model: nn.Module = timm.create_model(name, pretrained=name == bundled.PLAIN).eval()
    transform = ModelTransform(model)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(1, 3, transform.size, transform.size, generator=generator)
    salience = torch.randn(maps, transform.size, transform.size, generator=generator)
    owner = torch.zeros(maps, dtype=torch.long)
    engine = Perturber(model, transform.normalise, batch_size=batch_size)
    untouched = engine.untouched(pixels)
    masks = [removal_masks(salience, most_important_first=first)[:, 1:-1] for first in (True, False)]
    images = torch.cat(
        [transform.normalise(pixels.masked_fill(gone, 0)) for gone in torch.cat(masks).flatten(0, 1)[:, None]]
    )

    def bare() -> None:
        with torch.inference_mode():
            for part in images.split(batch_size):
                model(part)

    idle = Perturber(lambda x: untouched.expand(len(x), -1), transform.normalise, batch_size=batch_size)
    parts = {
        "bare": bare,
        "curves": lambda: engine.curves(pixels, salience, untouched, owner),
        "idle": lambda: idle.curves(pixels, salience, untouched, owner),
    }
    times = alternated(parts, rounds)
    speed = {part: len(images) / median(wall for wall, _ in found) for part, found in times.items()}
    alone = median(one[1] / other[1] for one, other in zip(times["idle"], times["bare"], strict=True))
    wall, processor = (ratio(times["curves"], times["bare"], which) for which in (0, 1))
    print(
        f"| {name} | {len(images)} | {batch_size} | {speed['bare']:.1f} | {speed['curves']:.1f} | {wall:.1%} | "
        f"{processor:.1%} | {alone:.1%} |",
        flush=True,
    )


def beside_quantus(count: int, batch_size: int, rounds: int) -> None:
    """Both curves on scenes; PixelFlipping is called once with the maps and once with their negative."""
    import quantus

    vars(np).setdefault("trapz", getattr(np, "trapezoid", None))  # Quantus 0.6 asks for it
    model = timm.create_model(bundled.PLAIN, pretrained=True).eval()
    pixels, labels, _ = batch(Scenes("test"), range(count))
    transform = ModelTransform(model)
    salience = torch.nn.functional.avg_pool2d(pixels.mean(1, keepdim=True), 9, 1, 4)[:, 0]
    x, y, a = (
        transform.normalise(pixels).numpy(),
        labels.numpy(),
        (salience - salience.mean((1, 2), keepdim=True))[:, None].numpy(),
    )

    def ours() -> list[torch.Tensor]:
        engine = Perturber(model, transform.normalise, batch_size=batch_size)
        curves = engine.curves(pixels, salience, engine.untouched(pixels))
        return [area_under_curve(class_probability(curve, labels)) for curve in curves]

    def flipping(step: int) -> Callable[[], list[object]]:
        def both() -> list[object]:
            found = []
            for sign in (1, -1):
                metric = quantus.PixelFlipping(
                    features_in_step=step,
                    perturb_baseline=-1.0,  # black, once normalised
                    normalise=False,
                    return_auc_per_sample=True,
                    disable_warnings=True,
                    display_progressbar=False,
                )
                found.append(metric(model=model, x_batch=x, y_batch=y, a_batch=sign * a, batch_size=batch_size))
            return found

        return both

    steps = {f"PixelFlipping, {step} entries a step": step for step in (512, 256, 128)}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        times = alternated({"Perturber": ours} | {name: flipping(step) for name, step in steps.items()}, rounds)
        areas = ours()
        flipped = flipping(512)()
    entries = x[0].size
    print(f"\n{bundled.PLAIN}, {count} images, batch {batch_size}, both curves, medians of {rounds} rounds\n")
    print("| | levels | of whole pixels | s a curve pair | times ours, wall clock | processor |")
    print("|---|---|---|---|---|---|")
    for name, found in times.items():
        levels = entries // steps[name] if name in steps else 21
        whole = levels // 3 if name in steps else levels  # where three steps, so all channels of a pixel, end
        wall, processor = (ratio(times["Perturber"], found, which) for which in (0, 1))
        each = median(seconds for seconds, _ in found) / count
        print(f"| {name} | {levels} | {whole} | {each:.2f} | {wall:.2f} | {processor:.2f} |")
    ends = [float(np.mean(scores)) / (entries // 512 - 1) for scores in flipped]
    print("\nmean area under the probability, positive and negative, the two within a level of each other:")
    print(f"ours {areas[0].mean():.3f}, {areas[1].mean():.3f}; PixelFlipping {ends[0]:.3f}, {ends[1]:.3f}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--maps", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--threads", type=int, default=0, help="0: as torch chooses")
    parser.add_argument("--models", nargs="+", default=[bundled.PLAIN, "vit_tiny_patch16_224"])
    parser.add_argument("--part", choices=("forwards", "quantus", "all"), default="all")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.part != "quantus":
        print(f"Both curves of {args.maps} maps, medians of {args.rounds} alternated rounds\n")
        print("| model | images | batch | bare images/s | curves images/s | wall clock | processor | without model |")
        print("|---|---|---|---|---|---|---|---|")
        for name in args.models:
            forwards(name, args.maps, args.batch, args.rounds)
    if args.part != "forwards":
        beside_quantus(args.images, args.batch, max(1, args.rounds // 2))


if __name__ == "__main__":
    main()
