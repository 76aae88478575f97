"""The cost of astrocytes: Grad-CAM with and without them, and a search compared with as many separate runs.

Run ``python -m tests.benchmarks.bench_vita``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import timm
import torch

from captum_astro import TokenGradCAM, ViTAGradCAM
from captum_astro.data.human import HumanSample, prepare_heatmap
from captum_astro.data.transforms import ModelTransform
from captum_astro.evaluation.vita.config import SearchConfig
from captum_astro.evaluation.vita.search import search
from captum_astro.evaluation.vita.settings import grid
from captum_astro.metrics.alignment import dice

ROUNDS = 7


def timed(parts: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Medians of alternated runs, in seconds."""
    found: dict[str, list[float]] = {name: [] for name in parts}
    for turn in range(rounds + 1):
        for name, part in parts.items():
            start = time.perf_counter()
            part()
            if turn:  # the first round warms up
                found[name].append(time.perf_counter() - start)
    return {name: median(times) for name, times in found.items()}


def overhead() -> None:
    torch.manual_seed(0)
    model = timm.create_model("vit_base_patch16_224").eval()
    x, target = torch.randn(4, 3, 224, 224), torch.tensor([1, 2, 3, 4])
    plain, vita = TokenGradCAM(model), ViTAGradCAM(model)

    def chosen() -> torch.Tensor:
        with torch.no_grad():
            top = model(x).argmax(-1)
        return plain.attribute(x, target=top)

    times = timed(
        {
            "TokenGradCAM": lambda: plain.attribute(x, target=target),
            "ViTAGradCAM": lambda: vita.attribute(x, target=target),
            "TokenGradCAM, first choice": chosen,
            "ViTAGradCAM, first choice": lambda: vita.attribute(x),
        }
    )
    print("ViT-B/16, batch 4")
    for name, seconds in times.items():
        print(f"| {name} | {seconds:.2f} s |")
    print(f"overhead, target given: {times['ViTAGradCAM'] / times['TokenGradCAM'] - 1:+.1%}")
    print(
        f"overhead, first choice: {times['ViTAGradCAM, first choice'] / times['TokenGradCAM, first choice'] - 1:+.1%}\n"
    )


def searched(layer: str, batch: int, given: bool) -> None:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224").eval()
    settings = grid(layer=[layer])
    samples = [
        HumanSample(torch.randint(0, 256, (3, 224, 224), dtype=torch.uint8), torch.rand(224, 224), None, str(i))
        for i in range(batch)
    ]
    transform = ModelTransform(model, "none")
    x = transform.normalise(torch.stack([transform(sample.image)[0] for sample in samples]))
    human = torch.stack([prepare_heatmap(sample.human) for sample in samples])
    with torch.no_grad():
        target = model(x).argmax(-1) if given else None

    def apart() -> None:
        for setting in settings:
            keywords = setting.keywords
            explain = ViTAGradCAM(model, modulated_layer=keywords.pop("layer"), **keywords)
            dice(explain.attribute(x, target=target, attribute_to="pixels")[:, 0], human)

    times = timed(
        {
            "search": lambda: search(
                model, samples, settings, SearchConfig(("TokenGradCAM",), ("dice",), batch_size=batch)
            ),
            "apart": apart,
        },
        rounds=2,
    )
    print(
        f"| {layer} | {batch} | {'given' if given else 'first choice'} | {times['apart']:.1f} s | "
        f"{times['search']:.1f} s | {times['search'] / times['apart']:.2f} |",
        flush=True,
    )


def main() -> None:
    overhead()
    print("144 settings, ViT-Ti/16, Grad-CAM and Dice\n")
    print("| layer | images | class | separate runs | search | ratio |\n|---|---|---|---|---|---|")
    for batch in (2, 4):
        searched("blocks.0.attn.proj", batch, given=False)
    searched("blocks.0.attn.proj", 4, given=True)
    searched("blocks.6.attn.proj", 4, given=False)
    searched("blocks.11.attn.proj", 4, given=False)


if __name__ == "__main__":
    main()
