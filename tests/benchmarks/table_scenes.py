"""How much of each method's map falls on the digit of the bundled scenes; prints a Markdown table.

    python -m tests.benchmarks.table_scenes [--scenes 500] [--model scenes_pit_tiny_patch4_64] [--methods LeGrad VTranM]

Pointing game: the fraction of scenes whose largest value lies on the object. Energy: the fraction of the positive part
on the object. mIoU: of the map above its mean. Chance is the object's fraction of the image. A method that rejects the
model has no values. Without ``--methods``, the sign of AttnLRP is then compared with Captum's IntegratedGradients.
"""

from __future__ import annotations

import argparse

import timm
import torch
from captum.attr import IntegratedGradients

from captum_astro import AttnLRP, UnsupportedModelError, ViTAGradCAM, explainers
from captum_astro.data.scenes import Scenes, batch
from captum_astro.metrics.localisation import energy_inside, object_share, pointing_game
from captum_astro.metrics.segmentation import mean_iou
from captum_astro.models import bundled


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--model", default=bundled.PLAIN)
    parser.add_argument("--methods", nargs="*", help="all by default")
    args = parser.parse_args()
    model = timm.create_model(args.model, pretrained=True).eval()
    images, labels, masks = batch(Scenes("test", args.scenes), range(args.scenes))
    x = (images - 0.5) / 0.5
    chance = object_share(masks).mean().item()
    print(f"{args.scenes} scenes of held-out digits, the true digit explained; chance {chance:.1%}\n")
    print("| method | pointing game | energy on the object | mIoU |\n|---|---|---|---|")
    for explainer in explainers():
        if issubclass(explainer.method, ViTAGradCAM):
            continue  # TokenGradCAM on another model
        if args.methods and explainer.name not in args.methods:
            continue
        try:
            method = explainer.method(model)
            maps = method.attribute(x, target=labels, attribute_to="pixels", internal_batch_size=50)[:, 0]
        except UnsupportedModelError:
            print(f"| {explainer.name} | - | - | - |")
            continue
        scores = (pointing_game, energy_inside, mean_iou)
        hits, energy, overlap = (score(maps, masks).mean().item() for score in scores)
        print(f"| {explainer.name} | {hits:.1%} | {energy:.1%} | {overlap:.3f} |", flush=True)
    if args.methods:
        return
    some = slice(0, 50)
    try:
        relevance = AttnLRP(model).attribute(x[some], target=labels[some])
    except UnsupportedModelError as error:
        print(f"\n{error}")
        return
    gradients = IntegratedGradients(model).attribute(x[some], target=labels[some], n_steps=32, internal_batch_size=64)
    on = masks[some, None].expand_as(x[some])
    for where, chosen in (("everywhere", torch.ones_like(on)), ("on the object", on)):
        same = ((gradients > 0) == (relevance > 0))[chosen].float().mean().item()
        patches = [torch.nn.functional.avg_pool2d(m.sum(1, keepdim=True), 4) for m in (gradients, relevance)]
        cover = torch.nn.functional.avg_pool2d(chosen[:, :1].float(), 4) > 0.5
        coarse = ((patches[0] > 0) == (patches[1] > 0))[cover].float().mean().item()
        print(
            f"\nAttnLRP and IntegratedGradients have the same sign {where}: {same:.1%} of values, {coarse:.1%} of "
            f"patches"
        )


if __name__ == "__main__":
    main()
