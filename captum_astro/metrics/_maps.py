"""Validation and conversion of maps and masks."""

from __future__ import annotations

from typing import NamedTuple

import torch


class MapsAndMasks(NamedTuple):
    """Maps ``(B, H, W)`` float64, and bool masks of the object, the background and all known pixels.

    ``finite`` ``(B,)`` says which maps can be scored; the others are filled with zeros.
    """

    maps: torch.Tensor
    object: torch.Tensor
    background: torch.Tensor
    finite: torch.Tensor

    @property
    def labelled(self) -> torch.Tensor:
        """All pixels except the unknown ones."""
        return self.object | self.background

    def undefined_to_nan(self, scores: torch.Tensor, defined: torch.Tensor | None = None) -> torch.Tensor:
        """``(B,)`` scores, NaN where the map is not finite or ``defined`` is False."""
        good = self.finite if defined is None else self.finite & defined
        return torch.where(good, scores, torch.nan)


def maps_and_masks(maps: torch.Tensor, masks: torch.Tensor) -> MapsAndMasks:
    """Validate and convert both.

    Args:
        maps: ``(B, H, W)`` or ``(B, 1, H, W)``.
        masks: The same shape; 1 or True object, 0 or False background, -1 unknown.

    Raises:
        ValueError: If a shape or a value is invalid.
    """
    maps, finite = finite_maps(maps)
    masks = planes("masks", masks).to(maps.device)
    if maps.shape != masks.shape:
        raise ValueError(
            f"maps {tuple(maps.shape)} and masks {tuple(masks.shape)} differ in shape; bring the maps to the size of "
            "the masks (torch.nn.functional.interpolate)."
        )
    inside, outside = masks == 1, masks == 0
    strange = masks[~(inside | outside | (masks == -1))]
    if len(strange):
        raise ValueError(
            f"masks: 1 (object), 0 (background) and -1 (unknown) are the values, not {strange[0].item()}; compare "
            "with a threshold first, and write -1 where nothing is known."
        )
    return MapsAndMasks(maps, inside, outside, finite)


def finite_maps(maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps ``(B, H, W)`` in float64, zeros for one with NaN or infinite values, and ``(B,)`` which are finite."""
    maps = planes("maps", maps).double()
    finite = maps.isfinite().flatten(1).all(1)
    return torch.where(finite[:, None, None], maps, 0.0), finite


def planes(name: str, values: torch.Tensor) -> torch.Tensor:
    """Convert to ``(B, H, W)``, from that or ``(B, 1, H, W)``.

    Raises:
        ValueError: If the shape is different, or the values are complex.
    """
    shape = tuple(values.shape)
    if values.ndim == 4 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 3 or 0 in values.shape[1:]:
        raise ValueError(
            f"{name}: (B, H, W) or (B, 1, H, W) is needed, not {shape}; sum or average the channels of an "
            "attribution, and give a single one a batch (map[None])."
        )
    if values.is_complex():
        raise ValueError(f"{name}: real values are needed, not {values.dtype}.")
    return values.detach().contiguous()


def finite_planes(name: str, values: torch.Tensor) -> torch.Tensor:
    """As `planes`, for finite values only.

    Raises:
        ValueError: As `planes`, or if a value is NaN or infinite; the message lists the indices in the batch.
    """
    values = planes(name, values)
    bad = (~values.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if bad:
        raise ValueError(
            f"{name}: NaN or infinite values at {bad[:10]} of the batch; leave these maps out or replace the values "
            "(torch.nan_to_num)."
        )
    return values


def correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Pearson's correlation over the last dimension, ``(..., n)`` to ``(...)`` float64; NaN where one is constant."""
    equal = (a == a[..., :1]).all(-1) | (b == b[..., :1]).all(-1)  # a rounded mean of equal values may differ from them
    a, b = (values.double() - values.double().mean(-1, keepdim=True) for values in (a, b))
    found: torch.Tensor = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))
    return found.clamp(-1, 1).masked_fill(equal, torch.nan)


def unit_range(maps: torch.Tensor) -> torch.Tensor:
    """Each ``(H, W)`` map rescaled to 0 .. 1 by its own minimum and maximum; a constant one becomes zeros."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    span = high - low
    return (maps - low) / torch.where(span > 0, span, 1.0)
