"""A model and some methods, prepared to explain one image after the other."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from captum_astro.astro.opened import opened_on
from captum_astro.astro.vita import ViTA
from captum_astro.attr._propagation import PropagationAttribution
from captum_astro.attr.explainers import Configured, configured, explainers_named
from captum_astro.caller import warn
from captum_astro.data.view import Fit
from captum_astro.explaining.classes import Class, Wanted, index_of
from captum_astro.explaining.classifier import Classifier
from captum_astro.explaining.given import Given
from captum_astro.explaining.result import Result
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.unwrap import unwrapped
from captum_astro.storage import weights_digest
from captum_astro.versions import versions
from captum_astro.viz.maps import pooled

_TOP = 5
_ACROSS = 14  # patches at most along the short side of a drawn map: more would be speckles


def chosen(words: Sequence[str], under_vita: bool = False) -> list[Configured]:
    """The methods that are named, each once, in the order given.

    Args:
        words: Names with options, or ``all``, which leaves out methods that cost many passes.
        under_vita: The model has astrocytes already: ``all`` leaves out the methods that add their own.

    Raises:
        ValueError: If there is no such method or option, or only methods that add astrocytes to those of the model.
    """
    every = list(explainers_named(["all"]))
    names = [name for word in words for name in (every if word.strip().lower() == "all" else [word])]
    found = list({one.name: one for one in map(configured, names)}.values())
    if not found:
        raise ValueError("No method is named: give one, such as VTranM.")
    kept = [one for one in found if not (under_vita and one.has_astrocytes)]
    if not kept:
        raise ValueError("ViTAGradCAM adds its own astrocytes; explain a model under ViTA with TokenGradCAM instead.")
    return kept


def _astrocytes(model: nn.Module) -> ViTA | None:
    """The ViTA that modulates a model: around it, inside a wrapper, or open around the call."""
    for module in model.modules():
        if isinstance(module, ViTA):
            return module
        if isinstance(module, nn.Linear) and (opened := opened_on(module)) is not None:
            return opened.vita
    return None


class Session:
    """A model and some methods.

    Args:
        model: As in `captum_astro.explain`.
        methods: Names with options.
        fit: How images are fitted to the model.
        name: The model's name, for the record.
        names: The names of its classes.

    Attributes:
        methods: The methods.
        classifier: The model as it classifies.
        view: Its preprocessing.
        made: What all maps were made with, as `captum_astro.explaining.result.Result` has it.

    Raises:
        ValueError: If there is no such method, option or fit.
        UnsupportedModelError: If a method that is named cannot explain the model; ``all`` leaves it out.
    """

    def __init__(
        self,
        model: nn.Module,
        methods: Sequence[str],
        fit: Fit = "center",
        name: str | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        vita = _astrocytes(unwrapped(model))
        self.methods = chosen(methods, vita is not None)
        self.classifier = Classifier(model, fit, names)
        self.view = self.classifier.view
        self._named = not any(word.strip().lower() == "all" for word in methods)
        self._explainers: dict[str, Any] = {}
        for one in self.methods:
            with self._defined(one.name):
                self._explainers[one.name] = one.explainer.method(model, **one.building)
        self.made: dict[str, Any] = {
            "model": {
                "name": name or (getattr(self.classifier.described, "pretrained_cfg", None) or {}).get("architecture"),
                "class": type(self.classifier.model).__name__,
                "weights": weights_digest(self.classifier.model),
            },
            "vita": None if vita is None else {"layer": vita.layer, **dataclasses.asdict(vita.modulation)},
            "versions": versions(),
        }

    def results(self, image: Given, targets: Sequence[Wanted], option: str = "target") -> list[Result]:
        """Explain an image: every target with every method.

        Args:
            image: The image.
            targets: The classes, by index or name; None for the most probable one.
            option: What the targets belong to, for messages.

        Raises:
            ValueError: If there is no such class, or the model does not take such images.
        """
        classes = self.classifier.classes(image)
        probabilities, names = torch.tensor([one.probability for one in classes]), [one.name for one in classes]
        top = [classes[index] for index in probabilities.topk(min(_TOP, len(names))).indices.tolist()]
        wanted = [classes[index_of(target, probabilities, names, option)] for target in targets]
        x, found = self.classifier.input(image), []
        for target in wanted:
            for method in [one for one in self.methods if one.name in self._explainers]:
                with self._defined(method.name):
                    found.append(self._result(method, x, target, image, top))
        return found

    @contextlib.contextmanager
    def _defined(self, method: str) -> Iterator[None]:
        """Leave out a method that is one of all, if it cannot explain the model.

        Raises:
            UnsupportedModelError: If it was named.
        """
        try:
            yield
        except UnsupportedModelError as error:
            if self._named:
                raise
            self._explainers.pop(method, None)
            warn(f"{method} is left out: {error}")

    def _result(self, method: Configured, x: torch.Tensor, target: Class, image: Given, top: list[Class]) -> Result:
        explainer = self._explainers[method.name]
        attributions = explainer.attribute(x, target=target.index, **method.calling)
        if isinstance(explainer, PropagationAttribution):
            height, width = self._patch(x)
            grid = pooled(attributions, (height, width))[0]
            least = min(x.shape[2:]) // _ACROSS
            patch = max(height, least), max(width, least)
        else:
            patch = 1, 1
            grid = explainer.attribute(x, target=target.index, attribute_to="grid", **method.calling)[0, 0]
        options = {"method": method.name, "options": {**method.building, **method.calling}}
        return Result(attributions, grid, top, target, image.image, image.crop, patch, self.made, options, image.file)

    def _patch(self, x: torch.Tensor) -> tuple[int, int]:
        """Height and width of a patch in pixels; one pixel for a model without patches."""
        height, width = x.shape[2:]
        rows, columns = self.classifier.grid(x) or (height, width)
        return -(-height // rows), -(-width // columns)
