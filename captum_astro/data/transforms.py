"""Preprocessing of images and their masks for a model, with the same geometry."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import timm
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import Compose, InterpolationMode, PILToTensor, Resize

from captum_astro.data.images import check_sides
from captum_astro.models.data_config import data_config

Crop = Literal["timm", "none"]


class ModelTransform:
    """Pixels of a model's input in [0, 1], and the mask of the same pixels.

    Normalisation is separate, because perturbations set pixels to 0 before it. On a PIL image, with ``crop="timm"`` and
    `normalise`, this is timm's own evaluation transform bit for bit.

    Args:
        model: A timm model, or a wrapper around one.
        crop: ``"timm"``: as timm evaluates the model: resized by its ``crop_pct`` and interpolation, then
            centre-cropped. ``"none"``: the whole image, resized bilinearly to the square, as in Chefer et al.'s
            segmentation: maps of the whole image, such as human attention maps, stay aligned.

    Attributes:
        size: The side length S of the input, in pixels: from the patch embedding, otherwise from the model's
            configuration.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        described: All settings, for the record of a run.

    Raises:
        ValueError: If ``crop`` is neither of the two, or the model does not take square images of three channels.

    Source:
        timm's ``create_transform``; Chefer et al., "Transformer interpretability beyond attention visualization",
        CVPR 2021, and the code published with it.

    Example:
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=1)
        >>> transform = ModelTransform(model)
        >>> image = torch.full((3, 48, 60), 255, dtype=torch.uint8)
        >>> pixels, mask = transform(image, torch.ones(48, 60, dtype=torch.int8))
        >>> pixels.shape, mask.shape, pixels.max(), transform.normalise(pixels).max()
        (torch.Size([3, 32, 32]), torch.Size([32, 32]), tensor(1.), tensor(1.))
    """

    def __init__(self, model: nn.Module, crop: Crop = "timm") -> None:
        if crop not in ("timm", "none"):
            raise ValueError(f"crop must be 'timm' or 'none', not {crop!r}.")
        config = data_config(model)
        self.size = _side(config)
        self.mean, self.std = (tuple(float(value) for value in config[key]) for key in ("mean", "std"))
        self.described: dict[str, Any] = {
            "mean": list(self.mean),
            "std": list(self.std),
            "input_size": self.size,
            "crop": crop,
        }
        if crop == "timm":
            self.described |= {key: config[key] for key in ("crop_pct", "crop_mode", "interpolation")}
            self._image = timm.data.create_transform(**config, is_training=False, normalize=False)
            # where timm pads an image with its mean, the mask is padded with 255, which is -1
            nearest = {**config, "interpolation": "nearest", "mean": (1.0,), "std": (1.0,)}
            self._mask = timm.data.create_transform(**nearest, is_training=False, normalize=False)
        else:
            self._image, self._mask = _whole(self.size, "BILINEAR"), _whole(self.size, "NEAREST")

    def __call__(
        self, image: torch.Tensor, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Resize an image and its mask to the model's size.

        Args:
            image: ``(3, H, W)`` uint8.
            mask: ``(H, W)`` int8, or None.

        Returns:
            ``(3, S, S)`` float32 in [0, 1], and ``(S, S)`` int8 by nearest neighbour, or None.

        Raises:
            ValueError: If they do not have these shapes and types.
            ImageError: If one side of the image is more than 300 times the other.
        """
        if image.dim() != 3 or image.shape[0] != 3 or image.dtype != torch.uint8:
            raise ValueError(f"An image must be (3, H, W) uint8, not {tuple(image.shape)} {image.dtype}.")
        if mask is not None and (mask.shape != image.shape[1:] or mask.dtype != torch.int8):
            raise ValueError(
                f"A mask must be int8 of its image's {tuple(image.shape[1:])}, not {tuple(mask.shape)} {mask.dtype}."
            )
        check_sides(image.shape[2], image.shape[1], "The sample")
        pixels = self._image(Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())))
        if mask is None:
            return pixels.float() / 255, None
        sized = self._mask(Image.fromarray(mask.contiguous().view(torch.uint8).numpy()))
        return pixels.float() / 255, sized[0].view(torch.int8)

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """``(..., 3, S, S)`` in [0, 1] to the model's input, on the same device and of the same type."""
        mean, std = (pixels.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (pixels - mean) / std


def _side(config: dict[str, Any]) -> int:
    channels, height, width = map(int, config["input_size"])
    if height != width or channels != 3 or len(config["mean"]) != 3:
        raise ValueError(f"The model takes {channels} channels of {height} x {width}: only three of a square will do.")
    return width


def _whole(side: int, interpolation: str) -> Compose:
    return Compose([Resize((side, side), InterpolationMode[interpolation]), PILToTensor()])
