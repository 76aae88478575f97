"""How an image is fitted to a model, and which part of it the model then sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import timm
import torch
from PIL import Image
from torch import nn

from captum_astro.models.data_config import data_config

Fit = Literal["center", "squash", "none"]


@dataclass(frozen=True)
class Crop:
    """The part of an image that a model sees.

    Attributes:
        fit: How the image was fitted to the model, as in `View`.
        box: Left, top, right and bottom of the part, in pixels of the image; outside the image where borders were
            added.
        size: Width and height of the image.

    Example:
        >>> print(Crop("center", (50, 0, 150, 100), (200, 100)))
        center crop: the model sees 50% of the image
    """

    fit: Fit
    box: tuple[float, float, float, float]
    size: tuple[int, int]

    @property
    def share(self) -> float:
        """The share of the image's pixels that the model sees, from 0 to 1."""
        (left, top, right, bottom), (width, height) = self.box, self.size
        across, down = min(right, width) - max(left, 0), min(bottom, height) - max(top, 0)
        return across * down / (width * height)

    @property
    def whole(self) -> bool:
        """Whether the model sees all of the image, but for what rounding cuts off."""
        return self.share > 0.995

    def __str__(self) -> str:
        if self.whole:
            return "the model sees the whole image"
        return f"{self.fit} crop: the model sees {self.share:.0%} of the image"


class View:
    """A model's evaluation transform, with a choice of how the image is fitted.

    Args:
        model: A timm model, or the image encoder of open_clip.
        fit: ``"center"`` as the model was evaluated, which for most models means resized and cropped at the centre;
            ``"squash"``: the whole image, resized to the model's shape; ``"none"``: the whole image in its own shape,
            with borders of the mean colour.

    Raises:
        ValueError: If there is no such fit.

    Example:
        >>> model = timm.create_model("test_vit")
        >>> x, crop = View(model)(Image.new("RGB", (320, 160)))
        >>> x.shape, round(crop.share, 2)  # its crop_pct is 0.95
        (torch.Size([3, 160, 160]), 0.45)
    """

    def __init__(self, model: nn.Module, fit: Fit = "center") -> None:
        if fit not in get_args(Fit):
            raise ValueError(f"crop must be {', '.join(get_args(Fit)[:-1])} or {get_args(Fit)[-1]}, not {fit!r}.")
        config = data_config(model)
        self.fit = fit
        self.height, self.width = config["input_size"][1:]
        self.mean, self.std = (tuple(float(value) for value in config[key]) for key in ("mean", "std"))
        if fit != "center":
            config |= {"crop_mode": "squash" if fit == "squash" else "border", "crop_pct": 1.0}
        self._steps = timm.data.create_transform(**config, is_training=False).transforms

    def __call__(self, image: Image.Image) -> tuple[torch.Tensor, Crop]:
        """The model's input ``(3, H, W)``, and what it shows of an RGB image."""
        resized = self._steps[0](image)
        x = resized
        for step in self._steps[1:]:
            x = step(x)
        (width, height), (across, down) = resized.size, image.size
        left, top = _start(width, self.width), _start(height, self.height)
        box = (
            left * across / width,
            top * down / height,
            (left + self.width) * across / width,
            (top + self.height) * down / height,
        )
        return x, Crop(self.fit, box, image.size)


def _start(resized: int, wanted: int) -> int:
    """Where a centred crop begins; negative for borders. As torchvision and timm round."""
    return round((resized - wanted) / 2) if resized >= wanted else -((wanted - resized) // 2)
