"""From a wish to its maps, and what is asked of them afterwards."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass, field
from functools import cached_property

import torch
from PIL import Image
from torch import nn

from captum_astro.app.networks import Network
from captum_astro.app.wish import Wish
from captum_astro.astro.vita import ViTA
from captum_astro.explaining.classes import Class
from captum_astro.explaining.classifier import Classifier
from captum_astro.explaining.curves import Curve, curves
from captum_astro.explaining.given import Given, given
from captum_astro.explaining.result import Results
from captum_astro.explaining.session import Session
from captum_astro.explaining.token_row import Contributions, contributions
from captum_astro.functional.token_map import Grid


@dataclass(frozen=True, eq=False)
class Explained:
    """The maps of one wish.

    Attributes:
        wish: What was asked for.
        results: The maps: of each class in turn, those of every method.
        model: What was explained, with its astrocytes if there are any.
        classifier: The model as it classifies.
        given: The image as the model sees it.
        notes: What was said of the model and the maps.
    """

    wish: Wish
    results: Results
    model: nn.Module
    classifier: Classifier
    given: Given
    notes: list[str] = field(default_factory=list)

    @property
    def targets(self) -> list[Class]:
        """The explained classes."""
        return list(dict.fromkeys(result.target for result in self.results))

    @cached_property
    def grid(self) -> Grid | None:
        """Rows and columns of the model's patches; None if it has no layout, and so no tokens to click on."""
        return self.classifier.grid(self.given.x)

    @cached_property
    def contributions(self) -> Contributions:
        """The contribution map of the first class.

        Raises:
            UnsupportedModelError: If VTranM cannot explain the model.
        """
        return contributions(self.model, self.given.x, self.targets[0].index)

    @cached_property
    def curves(self) -> list[Curve]:
        """The deletion and insertion curve of each result."""
        maps = torch.cat([result.attributions for result in self.results])
        targets = [result.target.index for result in self.results]
        return curves(self.classifier.model, self.given.x, maps, targets, self.classifier.view)


def explained(wish: Wish, network: Network, image: Image.Image) -> Explained:
    """Carry out a wish.

    Args:
        wish: The wish.
        network: Its model.
        image: Its image.

    Raises:
        ValueError: If no method is chosen, there is no such class, class B is class A, or an argument of ViTA is out of
            range.
        UnsupportedModelError: If a method cannot explain the model.
    """
    if not wish.methods:
        raise ValueError("No method is chosen: tick one, such as VTranM.")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        model = network.model if wish.vita is None else ViTA(network.model, **wish.vita)
        session = Session(model, wish.methods, wish.crop, wish.model.name, network.names)
        shown = dataclasses.replace(given(image, session.view), file=wish.image)
        results = Results(session.results(shown, wish.targets, "The class"))
    if len({result.target.index for result in results}) < len(wish.targets):
        raise ValueError(f"Class A and class B are both {results[0].target.short}: choose another one, or no class B.")
    ours = [str(one.message) for one in said if issubclass(one.category, UserWarning)]
    notes = list(dict.fromkeys([*network.notes, *ours]))
    return Explained(wish, results, model, session.classifier, shown, notes)


def classes_of(wish: Wish, network: Network, image: Image.Image) -> list[Class]:
    """Every class of a model, with its probability for an image, in the model's order.

    Raises:
        ValueError: If the model does not take such images.
    """
    classifier = Classifier(network.model, wish.crop, network.names)
    return classifier.classes(given(image, classifier.view))
