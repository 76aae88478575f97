"""The demonstration: the bundled models, scenes with known objects, and how much of the maps falls on them."""

from __future__ import annotations

from pathlib import Path

import timm
import torch

from captum_astro import viz
from captum_astro.attr.vtranm import VTranM
from captum_astro.data.scenes import Scenes, batch
from captum_astro.metrics.localisation import energy_inside, object_share, pointing_game
from captum_astro.models import bundled

SHOWN = 4


def run_demo(picture: Path, scenes: int = 100) -> str:
    """Explain scenes of held-out digits by VTranM with each bundled model, and draw the first few.

    Args:
        picture: The PNG file to write.
        scenes: How many scenes to explain.

    Returns:
        What was found, in words.

    Raises:
        OSError: If the picture cannot be written.
    """
    images, labels, masks = batch(Scenes("test", scenes), range(scenes))
    x = (images - 0.5) / 0.5
    lines, drawn, seen = [f"{scenes} scenes of digits that the models never saw."], {}, []
    for title, name in bundled.MODELS.items():
        model = timm.create_model(name, pretrained=True).eval()
        with torch.no_grad():
            predicted = model(x).argmax(1)
        maps = VTranM(model).attribute(x, target=predicted, attribute_to="pixels", internal_batch_size=50)[:, 0]
        share, hits = (score(maps, masks).mean().item() for score in (energy_inside, pointing_game))
        lines.append(
            f"{title}: {(predicted == labels).float().mean():.1%} recognised. VTranM puts {share:.1%} of its map on "
            f"the digit's pixels; its largest value lies on the digit in {hits:.0%}."
        )
        drawn[f"VTranM, {title}"] = maps[:SHOWN]
        seen.append(predicted[:SHOWN].tolist())
    drawn["where it is"] = masks[:SHOWN].float()
    titles = [
        f"digit {label}, seen as {' and '.join(map(str, dict.fromkeys(guesses)))}"
        for label, *guesses in zip(labels[:SHOWN].tolist(), *seen, strict=True)
    ]
    viz.compare(images[:SHOWN], drawn, titles).savefig(picture)
    lines.append(f"By chance {object_share(masks).mean():.1%} of a map falls on the digit, and as many largest values.")
    lines.append(f"The first {min(SHOWN, scenes)} are drawn in {picture}.")
    return "\n".join(lines)
