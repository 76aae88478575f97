"""The models of a running app: loaded once, shared by all visitors, and checked once."""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import nn

from captum_astro.app.intake import inside
from captum_astro.app.settings import Settings
from captum_astro.app.wish import ModelWish
from captum_astro.explaining.classifier import Classifier
from captum_astro.models.image_text import load_image_text
from captum_astro.models.loading import load_model
from captum_astro.models.text_target import text_target
from captum_astro.support.report import MethodsReport, check_methods

_KEPT = 2  # models, of which the largest take gigabytes
_REPORTS = 64

Found = TypeVar("Found")


@dataclass(frozen=True, eq=False)
class Network:
    """A loaded model.

    Attributes:
        model: What is explained.
        names: The texts that its outputs stand for; None if they are classes.
        notes: What was said of its weights.
    """

    model: nn.Module
    names: list[str] | None = None
    notes: list[str] = field(default_factory=list)


class Networks:
    """The models that were asked for last, and what `check_methods` said of them.

    Args:
        settings: Where weights files are.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings, self._loading = settings, threading.Lock()  # maps and verdicts ask at the same time
        self._loaded: OrderedDict[Hashable, Any] = OrderedDict()
        self._reports: OrderedDict[Hashable, MethodsReport] = OrderedDict()

    def get(self, wish: ModelWish) -> Network:
        """A model, loaded unless it is there.

        Raises:
            ModelError: If it cannot be loaded.
            ValueError: If its weights file is not in the app's folder.
            MissingExtraError: If it is of open_clip, which is not installed.
        """
        load = self._image_text if wish.reads_text else self._classifier
        with self._loading:
            found = _kept(self._loaded, (wish.name, wish.checkpoint), _KEPT, lambda: load(wish))
        if isinstance(found, Network):
            return found
        model, tokenizer = found
        return Network(text_target(model, tokenizer, wish.prompts), list(wish.prompts))

    def report(self, wish: ModelWish) -> MethodsReport:
        """What each method gives on a model; measured on noise.

        Raises:
            ModelError: As `get`.
        """
        return _kept(self._reports, wish, _REPORTS, lambda: _checked(self.get(wish)))

    def _classifier(self, wish: ModelWish) -> Network:
        notes: list[str] = []
        model = load_model(wish.name, checkpoint=self._weights(wish), say=notes.append)
        return Network(model, None, notes)

    def _image_text(self, wish: ModelWish) -> Any:
        return load_image_text(wish.name, self._weights(wish))

    def _weights(self, wish: ModelWish) -> Any:
        return None if wish.checkpoint is None else inside(wish.checkpoint, self._settings.folder)


def _checked(network: Network) -> MethodsReport:
    view = Classifier(network.model).view
    images = torch.randn(1, len(view.mean), view.height, view.width, generator=torch.Generator().manual_seed(0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the report says it
        return check_methods(network.model, images)


def _kept(held: OrderedDict[Hashable, Found], key: Hashable, most: int, make: Callable[[], Found]) -> Found:
    """The value of a key, made if it is missing; the one that was used longest ago makes room first."""
    if key not in held:
        while len(held) >= most:
            held.popitem(last=False)
        held[key] = make()
    held.move_to_end(key)
    return held[key]
