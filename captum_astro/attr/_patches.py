"""Lists of patches: their validation, their padding, and the form of their attributions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from captum_astro.capture.call import Call
from captum_astro.layouts.patch_lists import PatchLists


def check_patches(patches: torch.Tensor, arguments: tuple[Any, ...], lists: PatchLists, attribute_to: str) -> None:
    """Reject lists of patches that no method can explain.

    Args:
        patches: ``(B, n, ...)``.
        arguments: The additional arguments of the model.
        lists: What they are.
        attribute_to: The requested form.

    Raises:
        ValueError: If there are any; the message names them.
    """
    names = ", ".join(lists.arguments)
    if not patches.is_floating_point() or patches.numel() == 0:
        raise ValueError(f"Patches must be floating point (B, n, ...), not {patches.dtype} {tuple(patches.shape)}.")
    if not torch.isfinite(patches).all():
        raise ValueError("The patches contain NaN or infinite values. Padding may have any other, such as 0.")
    given = [f"{type(x).__name__} {tuple(getattr(x, 'shape', ()))}" for x in arguments]
    if len(arguments) != len(lists.arguments) or not all(isinstance(x, torch.Tensor) for x in arguments):
        raise ValueError(
            f"An input {tuple(patches.shape)} is read as lists of patches (B, n, ...), which need "
            f"additional_forward_args=({names}), all tensors, not ({', '.join(given)}). Images are (B, C, H, W)."
        )
    if attribute_to not in ("input", "tokens"):
        raise ValueError(
            f"Lists of patches have no common {attribute_to}: use attribute_to='input' or 'tokens'. "
            f"captum_astro.image_from_patches puts the result for one image back to its pixels."
        )
    named: dict[str, torch.Tensor] = dict(zip(lists.arguments, arguments, strict=True))
    valid = named[lists.valid]
    if valid.shape != patches.shape[:2] or valid.is_floating_point():
        raise ValueError(
            f"{lists.valid} must be boolean {tuple(patches.shape[:2])}, one for each patch, not {valid.dtype} "
            f"{tuple(valid.shape)}."
        )
    valid = valid.bool()
    if not valid[:, 0].all() or (valid[:, 1:] & ~valid[:, :-1]).any():
        raise ValueError(f"{lists.valid} must be True for the patches of each image, at least one, and then False.")
    if lists.coord is not None:
        _check_coord(lists.coord, named[lists.coord], valid)


def _check_coord(name: str, coord: torch.Tensor, valid: torch.Tensor) -> None:
    if coord.shape != (*valid.shape, 2) or coord.is_floating_point() or coord.dtype == torch.bool:
        raise ValueError(
            f"{name} must be integers {(*valid.shape, 2)}, the row and column of each patch, not {coord.dtype} "
            f"{tuple(coord.shape)}."
        )
    if (coord.amax(1) > coord.masked_fill(~valid[..., None], 0).amax(1)).any():
        raise ValueError(
            f"{name} has larger rows or columns at padding than at patches, which would change the size of the image. "
            f"Set them to 0 where {name.partition('_')[0]}_valid is False."
        )


def lengths(call: Call) -> list[int]:
    """The number of patches of each image, without padding."""
    assert call.layout is not None
    lists = call.layout.patch_lists
    assert lists is not None
    valid: torch.Tensor = call.arguments[lists.arguments.index(lists.valid)]
    return [int(number) for number in valid.bool().sum(1)]


def shortened(call: Call, length: int) -> Call:
    """A call without the padding after the first inputs of each sample.

    Args:
        call: A call with texts or lists of patches.
        length: The number of token ids or patches to keep.
    """
    lists = None if call.layout is None else call.layout.patch_lists
    arguments = call.arguments
    if lists is not None:
        cut = {lists.valid, lists.coord}
        arguments = tuple(
            value[:, :length] if name in cut else value for name, value in zip(lists.arguments, arguments, strict=True)
        )
    return replace(call, inputs=call.inputs[:, :length], arguments=arguments)


def padded(attributions: torch.Tensor, missing: int, attribute_to: str) -> torch.Tensor:
    """Attributions of texts or patches with zeros where their padding was cut off.

    Args:
        attributions: ``(B, n, ...)`` of the inputs' shape, or of tokens, ``(B, n)`` or ``(B, m, n)``.
        missing: The number of inputs that were cut off.
        attribute_to: Which of the two.
    """
    if attribute_to == "tokens":
        return F.pad(attributions, (0, missing) * (attributions.ndim - 1))
    return F.pad(attributions, (*(0, 0) * (attributions.ndim - 2), 0, missing))


def spread(values: torch.Tensor, patches: torch.Tensor, lists: PatchLists) -> torch.Tensor:
    """One value for each patch ``(B, n)`` at all its pixels, shared equally among the channels, as ``(B, n, ...)``."""
    shared = (values / lists.channels).to(patches.dtype)
    return shared.reshape(*shared.shape, *[1] * (patches.ndim - 2)).expand(patches.shape).contiguous()
