"""A model as it classifies images: its preprocessing, its classes, its patches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from captum_astro.astro.opened import unmodulated
from captum_astro.astro.vita import ViTA
from captum_astro.attr._inputs import channels_of
from captum_astro.capture.guard import private
from captum_astro.data.view import Fit, View
from captum_astro.explaining.classes import Class
from captum_astro.explaining.given import Given
from captum_astro.functional.token_map import Grid
from captum_astro.layouts.base import layout_for
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.unwrap import unwrapped
from captum_astro.models.data_config import described
from captum_astro.models.loading import class_names

# open_clip's image encoders, which may be around one of timm, say the first; timm's models the second
_SAID = ("preprocess_cfg", "pretrained_cfg")


class Classifier:
    """A model as it classifies images. Astrocytes, which serve explanation only, have no part in it.

    Args:
        model: As in `captum_astro.explain`.
        fit: How images are fitted to the model.
        names: The names of its classes; by default those of the model or of ImageNet, otherwise the indices.

    Attributes:
        model: The model itself, without wrappers and without `captum_astro.ViTA`.
        described: The part of it that says its name and its preprocessing.
        view: Its preprocessing.

    Raises:
        ValueError: If there is no such fit.

    Example:
        >>> import timm
        >>> from PIL import Image
        >>> from captum_astro.explaining.given import given
        >>> classifier = Classifier(timm.create_model("scenes_vit_tiny_patch4_64", pretrained=True).eval())
        >>> image = given(Image.new("RGB", (90, 60)), classifier.view)
        >>> len(classifier.classes(image)), classifier.grid(image.x)
        (10, (16, 16))
    """

    def __init__(self, model: nn.Module, fit: Fit = "center", names: Sequence[str] | None = None) -> None:
        inside = unwrapped(model)
        self.model = unwrapped(inside.model) if isinstance(inside, ViTA) else inside
        self.described = described(self.model, *_SAID)
        self.view = View(self.described, fit)
        self._names = names
        self._weight = next(self.model.parameters(), torch.zeros(()))

    def input(self, image: Given) -> torch.Tensor:
        """An image ``(1, C, H, W)`` where and as the model's weights are."""
        return image.x.to(self._weight.device, self._weight.dtype)

    def classes(self, image: Given) -> list[Class]:
        """Every class of the model, with its probability for an image, in the model's order.

        Args:
            image: The image.

        Raises:
            ValueError: If the model does not take such images, or has another number of classes than names.
        """
        probabilities = self._probabilities(self.input(image)).tolist()
        names = self._names or class_names(self.described, len(probabilities))
        if len(names) != len(probabilities):
            raise ValueError(f"names has {len(names)} names, and the model {len(probabilities)} classes.")
        return [Class(*one) for one in zip(range(len(names)), names, probabilities, strict=True)]

    def grid(self, x: torch.Tensor) -> Grid | None:
        """Rows and columns of the patches of an input ``(1, C, H, W)``; None for a model without a layout."""
        with private(self.model) as replica:
            try:
                return layout_for(replica.model).grid(*x.shape[2:])
            except UnsupportedModelError:
                return None

    def _probabilities(self, x: torch.Tensor) -> torch.Tensor:
        """The probability of each class, without a trace in the user's model."""
        name = type(self.model).__name__
        with unmodulated(), private(self.model) as replica, torch.no_grad():
            try:
                layout = layout_for(replica.model)
            except UnsupportedModelError:  # Grad-CAM needs none
                layout = None
            if layout is not None and layout.reads_text:
                raise ValueError(f"{name} reads text: call a method's attribute instead.")
            channels = channels_of(replica.model, layout)
            if channels not in (None, x.shape[1]):
                raise ValueError(
                    f"{name} takes {channels} channels, and the image has {x.shape[1]}: pass the model's input as a "
                    f"tensor ({channels}, H, W)."
                )
            scores = replica.model(x)
        if not isinstance(scores, torch.Tensor) or scores.ndim != 2:
            shape = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
            raise ValueError(f"The model must return (B, classes), not {shape}: call a method's attribute instead.")
        return scores.float().softmax(-1)[0]
