"""What the page does: each function takes the values of some fields and returns those of others. Without Gradio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from captum_astro.app.charts import curve_chart, verdict
from captum_astro.app.explained import classes_of, explained
from captum_astro.app.files import download
from captum_astro.app.intake import Upload, receive
from captum_astro.app.networks import Networks
from captum_astro.app.panels import panels, shown, token_panel
from captum_astro.app.script import command_of, python_of
from captum_astro.app.settings import BUNDLED, Settings
from captum_astro.app.visit import Visit, scene
from captum_astro.app.wish import ModelWish, Wish, model_wish, wanted_class
from captum_astro.attr.explainers import explainers_named
from captum_astro.explaining.classes import Class

VITA = ("k", "tau", "phi", "alpha", "beta")
_TOP = 5
_LISTED = 2000  # classes that a list can hold: of more the top ones, and any other by its name


class Choice(NamedTuple):
    """What a list offers, each with the value it stands for, and what is chosen."""

    choices: list[Any]
    value: Any


class Handlers:
    """The functions behind the page.

    Args:
        settings: What the app offers.
        own: The folder of uploads.
    """

    def __init__(self, settings: Settings, own: Path) -> None:
        self.settings, self.own, self.networks = settings, own, Networks(settings)

    def warm(self) -> None:
        """Do once what the first visitor would wait for, unless the first model has to be downloaded."""
        if self.settings.first in BUNDLED:
            visit, wish = Visit(), Wish(ModelWish(self.settings.first), "scene_0.png", ("VTranM",))
            visit.add([scene(0)], self.settings)
            found = explained(wish, self.networks.get(wish.model), visit.image(wish.image, self.settings))
            panels(found)

    def receive(self, visit: Visit, files: Sequence[str] | None) -> tuple[Any, ...]:
        """Take uploaded files: the visit, and the images to choose from."""
        found = [self._received(Path(file)) for file in files or []]  # all, so that none stays on the disk
        errors = [one for one in found if isinstance(one, ValueError)]
        if errors:
            raise errors[0]
        visit.add([one for one in found if isinstance(one, Upload)], self.settings)
        return visit, self._images(visit)

    def scene(self, visit: Visit) -> tuple[Any, ...]:
        """Add a scene: the visit, and the images to choose from."""
        visit.add([scene(visit.scenes)], self.settings)
        visit.scenes += 1
        return visit, self._images(visit)

    def look(self, visit: Visit, *fields: Any) -> tuple[Any, ...]:
        """What the model sees in the image: the image, and the classes to choose from, twice."""
        wish = self.wish(*fields)
        image = visit.image(wish.image, self.settings)
        found = classes_of(wish, self.networks.get(wish.model), image)
        choices = _choices(found)
        return shown(image), Choice(choices, choices[0][1]), Choice(choices, None)

    def explain(self, visit: Visit, *fields: Any) -> tuple[Any, ...]:
        """The maps: the visit, what is drawn, the code, the command, and no curves yet."""
        wish = self.wish(*fields)
        image = visit.image(wish.image, self.settings)
        visit.explained = explained(wish, self.networks.get(wish.model), image)
        targets = visit.explained.targets
        return visit, panels(visit.explained), python_of(wish, targets), command_of(wish, targets), ""

    def verdict(self, *fields: Any) -> str:
        """What works with the model."""
        return verdict(self.networks.report(self.wish(*fields).model))

    def token(self, visit: Visit, row: int, column: int) -> dict[str, Any]:
        """What is drawn after a click on a patch."""
        found = visit.shown()
        return {**panels(found), "token": token_panel(found, row, column)}

    def curves(self, visit: Visit) -> str:
        """The deletion and insertion curves of the maps."""
        return curve_chart(visit.shown())

    def download(self, kind: str) -> Callable[[Visit], dict[str, str]]:
        """The function that makes a file of this kind from a visit."""
        return lambda visit: download(visit.shown(), kind)

    def wish(self, *fields: Any) -> Wish:
        """What the fields of `captum_astro.app.wiring.Fields` ask for, in their order."""
        values = iter(fields)
        image, crop, name, checkpoint, prompts = (next(values) for _ in range(5))
        methods = tuple(method for _ in families() for method in next(values))
        target, against, astrocytes = (next(values) for _ in range(3))
        vita = dict(zip(VITA, values, strict=True)) if astrocytes else None
        return Wish(
            model_wish(name, checkpoint, prompts, self.settings),
            image or "",
            methods,
            wanted_class(target),
            wanted_class(against),
            crop,
            vita,
        )

    def _received(self, file: Path) -> Upload | ValueError:
        try:
            return receive(file, self.own, self.settings)
        except ValueError as error:
            return error

    def _images(self, visit: Visit) -> Choice:
        names = visit.offered(self.settings)
        return Choice(names, names[0] if names else None)


def families() -> dict[str, list[str]]:
    """The methods of each family, without those that cost many passes: a visitor waits.

    Example:
        >>> sorted(families()), "VTranM" in families()["attention"]
        (['attention', 'gradient', 'propagation'], True)
    """
    found: dict[str, list[str]] = {}
    for one in explainers_named(["all"]).values():
        found.setdefault(one.family, []).append(one.name)
    return found


def _choices(classes: list[Class]) -> list[tuple[str, int]]:
    """The classes to choose from, the most probable ones first."""
    ranked = sorted(classes, key=lambda one: -one.probability)
    others = sorted(ranked[_TOP:], key=lambda one: one.index) if len(ranked) <= _LISTED else []
    top = [(f"{one.short} ({one.probability:.1%})", one.index) for one in ranked[:_TOP]]
    return [*top, *((one.name, one.index) for one in others)]
