"""The demonstration: the bundled model, scenes with known objects, and how much of a map falls on them."""

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
    """Explain scenes of held-out digits, and draw the first few.

    Args:
        picture: The PNG file to write.
        scenes: How many scenes to explain.

    Returns:
        What was found, in words.

    Raises:
        OSError: If the picture cannot be written.
    """
    model = timm.create_model(bundled.NAME, pretrained=True).eval()
    images, labels, masks = batch(Scenes("test", scenes), range(scenes))
    x = (images - 0.5) / 0.5
    with torch.no_grad():
        predicted = model(x).argmax(1)
    maps = VTranM(model).attribute(x, target=predicted, attribute_to="pixels", internal_batch_size=50)[:, 0]
    share, hits = (score(maps, masks).mean().item() for score in (energy_inside, pointing_game))
    chance = object_share(masks).mean().item()
    titles = [f"digit {label}, seen as {guess}" for label, guess in zip(labels, predicted, strict=True)]
    figure = viz.compare(images[:SHOWN], {"VTranM": maps[:SHOWN], "where it is": masks[:SHOWN].float()}, titles)
    figure.savefig(picture)
    return (
        f"{scenes} scenes of digits that the model never saw: {(predicted == labels).float().mean():.1%} recognised.\n"
        f"VTranM puts {share:.1%} of its map on the digit's pixels, where chance is {chance:.1%}; its largest "
        f"value lies on the digit in {hits:.0%}.\n"
        f"The first {min(SHOWN, scenes)} are drawn in {picture}."
    )
