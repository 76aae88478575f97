"""Compare ProjectedFlow with the other attention methods, and with the forms tried before it, on halves of a data set.

    python -m tests.benchmarks.measure_search --data boxes:FOLDER --half choice --tried --out DIR
    python -m tests.benchmarks.measure_search --data boxes:FOLDER --half confirmation --out DIR [--perturb 5]

The halves are drawn by a fixed seed: the definition was chosen on one and confirmed on the other. The predicted class
of whole images is explained. Every image has its own file in DIR, so the command may be interrupted and repeated.

Prints the mean of each score over the images, the difference of ProjectedFlow from each method, and p of Wilcoxon's
signed-rank test after Holm's correction over the table.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from captum_astro import ProjectedFlow, TransformerMM, VTranM, explainers
from captum_astro.attr._base import TokenAttribution
from captum_astro.attr.projected_flow import _FlowUpdate
from captum_astro.capture.call import Call
from captum_astro.capture.gradient_rules import ConstantDecisions, ConstantWeights
from captum_astro.capture.records import StageRecord
from captum_astro.capture.rules_mode import Rules
from captum_astro.data.specs import samples
from captum_astro.data.transforms import ModelTransform
from captum_astro.functional.attention import attention_gradient
from captum_astro.metrics.perturbation import area_under_curve, class_probability
from captum_astro.metrics.perturber import Perturber
from captum_astro.metrics.segmentation import mean_iou, pixel_accuracy
from captum_astro.metrics.signed_rank import signed_rank_p
from captum_astro.metrics.statistics import holm
from captum_astro.models.loading import load_model

OURS = "ProjectedFlow"
RULES: dict[str, type[Rules] | None] = {
    "own gradient": None,
    "weights and norms constant": ConstantWeights,
    "gates constant too": ConstantDecisions,
}


class _Nats(_FlowUpdate):
    """The flow in units of ``y``, so that its scale decides how much it weighs beside ``I``."""

    def branching(self, row: torch.Tensor, record: StageRecord) -> torch.Tensor:
        return row


class _MeanOfHeads(_Nats):
    """As Transformer-MM."""

    def attention(self, row: torch.Tensor, record: Any) -> torch.Tensor:
        return super().attention(row, record) / record.attention.value.shape[1]


class _SumFirst(_FlowUpdate):
    """Heads may cancel each other: the sum over heads is clamped."""

    def attention(self, row: torch.Tensor, record: Any) -> torch.Tensor:
        (_, maps), *_ = record.attention.chunks()
        edges = (attention_gradient(record.gradient, record.attention.value) * maps).sum(1).clamp_min(0)
        return torch.einsum("b...i,bij->b...j", row, edges)


UPDATES = {"projected": _FlowUpdate, "sum, units of y": _Nats, "mean, units of y": _MeanOfHeads, "(sum)+": _SumFirst}


class Tried(ProjectedFlow):
    """ProjectedFlow with other gradients or another update; one small image at a time."""

    def __init__(self, model: nn.Module, rules: str, update: str) -> None:
        super().__init__(model)
        self._kind, self._form = RULES[rules], UPDATES[update]

    def _rules(self, call: Call) -> Any:
        return None if self._kind is None else self._kind(call.model)

    def _row(self, call: Any, wanted: Any, passed: Any, update: Any) -> torch.Tensor:
        return super()._row(call, wanted, passed, self._form())


def methods(model: nn.Module, tried: bool) -> dict[str, tuple[TokenAttribution, dict[str, Any]]]:
    """Every method by its name, with the options of its `attribute`."""
    found: dict[str, Any] = {e.name: (e.method(model), {}) for e in explainers() if e.family == "attention"}
    lengths = {"components": ("length",), "output": "logit"}
    heads = float(model.blocks[0].attn.num_heads)
    found["VTranM, lengths, logit, sum over heads"] = VTranM(model), lengths | {"gain": heads}
    found["VTranM, lengths, logit, gain 10"] = VTranM(model), lengths | {"gain": 10.0}
    found["TransformerMM, probability"] = TransformerMM(model), {"output": "probability"}
    if tried:
        for rules, form in product(RULES, UPDATES):
            options = {"output": "logit"} if "units" in form else {}
            found[f"{form}; {rules}"] = Tried(model, rules, form), options
    return found


def half(size: int, name: str) -> list[int]:
    """The indices of one half of a data set."""
    order = torch.randperm(size, generator=torch.Generator().manual_seed(0)).tolist()
    return sorted(order[: size // 2] if name == "choice" else order[size // 2 :])


def scored(found: Any, sample: Any, transform: ModelTransform, engine: Perturber | None) -> dict[str, list[float]]:
    """For each method mIoU and pixel accuracy, and, with an engine, the areas under both curves of the probability."""
    pixels, mask = transform(sample.image, sample.mask)
    x = transform.normalise(pixels)[None]
    model = next(iter(found.values()))[0].forward_func
    with torch.no_grad():
        top = model(x).argmax(1)
    maps = {
        name: method.attribute(x, target=top, attribute_to="pixels", **options)[:, 0]
        for name, (method, options) in found.items()
    }
    rows = {name: [score(m, mask[None]).item() for score in (mean_iou, pixel_accuracy)] for name, m in maps.items()}
    if engine is not None:
        owner = torch.zeros(len(maps), dtype=torch.long)
        curves = engine.curves(pixels[None], torch.cat([*maps.values()]), engine.untouched(pixels[None]), owner)
        areas = [area_under_curve(class_probability(c, top.expand(len(maps)))) for c in curves]
        for row, *both in zip(rows.values(), *areas, strict=True):
            row += [area.item() for area in both]
    return rows


def table(rows: list[dict[str, list[float]]]) -> None:
    """Print the means, and the differences from ours; of the positive area, less is better."""
    names = [name for name in rows[0] if name != OURS]
    values = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    columns = ("mIoU", "pixel accuracy", "positive", "negative")[: values[OURS].shape[1]]
    print(f"\n{len(rows)} images\n\n| method | " + " | ".join(columns) + " |\n|---" * 1 + "|---" * len(columns) + "|")
    print(f"| {OURS} | " + " | ".join(f"{v:.4f}" for v in np.nanmean(values[OURS], 0)) + " |")
    differences = {name: values[OURS] - values[name] for name in names}
    kept = [d[:, c][np.isfinite(d[:, c]) & (d[:, c] != 0)] for d in differences.values() for c in range(len(columns))]
    p_values = iter(holm([signed_rank_p(d) for d in kept]))
    for name in names:
        pairs = zip(np.nanmean(values[name], 0), np.nanmean(differences[name], 0), strict=True)
        print(f"| {name} | " + " | ".join(f"{v:.4f} ({d:+.4f}, p {next(p_values):.0e})" for v, d in pairs) + " |")


def main() -> None:
    """Score what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="images with masks: boxes:FOLDER, masks:FOLDER")
    parser.add_argument("--half", choices=("choice", "confirmation"), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="deit_tiny_patch16_224")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--methods", help="names among those of the table, separated by /; all by default")
    parser.add_argument("--tried", action="store_true", help="the forms that were tried, too; for plain models")
    parser.add_argument("--perturb", type=int, default=0, help="steps of the perturbation test; 0 for none")
    parser.add_argument("--limit", type=int)
    args = parser.parse_args()
    model = load_model(args.model, checkpoint=args.checkpoint).eval().requires_grad_(False)
    found = methods(model, args.tried)
    if args.methods:
        found = {name: found[name] for name in args.methods.split("/")}
    transform, data, rows = ModelTransform(model, "none"), samples(args.data), []
    engine = Perturber(model, transform.normalise, steps=args.perturb, batch_size=16) if args.perturb else None
    args.out.mkdir(parents=True, exist_ok=True)
    for index in half(len(data), args.half)[: args.limit]:
        path = args.out / f"{args.half}-{index:05}.json"
        if not path.exists():
            path.write_text(json.dumps(scored(found, data[index], transform, engine)))
        rows.append(json.loads(path.read_text()))
    table(rows)


if __name__ == "__main__":
    main()
