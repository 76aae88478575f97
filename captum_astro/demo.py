"""The demo: the bundled models, scenes with known objects, and how much of each map falls on them."""

from __future__ import annotations

from pathlib import Path

import timm
import torch

from captum_astro import viz
from captum_astro.attr.vtranm import VTranM
from captum_astro.data.scenes import Scenes, batch
from captum_astro.metrics.localisation import energy_inside, object_share, pointing_game
from captum_astro.models import bundled
from captum_astro.storage import check_replaceable, write_whole

SHOWN = 4


def run_demo(picture: Path, scenes: int = 100) -> str:
    """Explain scenes of held-out digits with VTranM on each bundled model, and plot the first few.

    Args:
        picture: The PNG file to write.
        scenes: How many scenes to explain.

    Returns:
        A summary of the results as text.

    Raises:
        ValueError: If the picture's name does not end in ``.png``, or its folder is missing.
        OSError: If it cannot be written.
    """
    if picture.suffix.lower() != ".png":
        raise ValueError(f"The picture must be a file whose name ends in .png, not {str(picture)!r}.")
    if not picture.parent.is_dir():
        raise ValueError(f"{picture}: there is no folder {picture.parent}; create it first.")
    check_replaceable(picture)  # before the work
    images, labels, masks = batch(Scenes("test", scenes), range(scenes))
    x = (images - 0.5) / 0.5
    lines, drawn, seen = [f"{scenes} scenes of held-out digits."], {}, []
    for title, name in bundled.MODELS.items():
        model = timm.create_model(name, pretrained=True).eval()
        with torch.no_grad():
            predicted = model(x).argmax(1)
        maps = VTranM(model).attribute(x, target=predicted, attribute_to="pixels", internal_batch_size=50)[:, 0]
        share, hits = (score(maps, masks).mean().item() for score in (energy_inside, pointing_game))
        lines.append(
            f"{title}: {(predicted == labels).float().mean():.1%} classified correctly. VTranM puts {share:.1%} of its "
            f"map on the digit's pixels; the largest value lies on the digit in {hits:.0%}."
        )
        drawn[f"VTranM, {title}"] = maps[:SHOWN]
        seen.append(predicted[:SHOWN].tolist())
    drawn["ground-truth mask"] = masks[:SHOWN].float()
    titles = [
        f"digit {label}, predicted {' and '.join(map(str, dict.fromkeys(guesses)))}"
        for label, *guesses in zip(labels[:SHOWN].tolist(), *seen, strict=True)
    ]
    figure = viz.compare(images[:SHOWN], drawn, titles)
    write_whole(picture, lambda part: figure.savefig(part, format="png"))
    lines.append(
        f"By chance, {object_share(masks).mean():.1%} of a map and of the largest values would fall on the digit."
    )
    lines.append(f"The first {min(SHOWN, scenes)} are plotted in {picture}.")
    return "\n".join(lines)
