"""From a list of patches back to the pixels that they were cut from."""

from __future__ import annotations

import torch


def image_from_patches(
    patches: torch.Tensor,
    patch_coord: torch.Tensor,
    patch_valid: torch.Tensor,
    patch_size: int | tuple[int, int],
    channels_last: bool = True,
) -> torch.Tensor:
    """Put the patches of one image, or their attributions, back to its pixels.

    Args:
        patches: ``(n, P * P * C)``, or ``(n, P, P, C)``.
        patch_coord: Row and column of each patch, ``(n, 2)`` integers.
        patch_valid: Which are patches and no padding, ``(n,)`` bool.
        patch_size: Height and width of a patch, ``P``, or both.
        channels_last: The channel varies fastest in a patch, as by default in timm; otherwise slowest:
            ``(n, C * P * P)``, or ``(n, C, P, P)``.

    Returns:
        ``(C, H, W)``, the size of the grid of its patches; 0 where there is none. The sum over the channels of
        attributions is their pixel map.

    Raises:
        ValueError: If the patches are not of this size, or the arguments do not belong to one image.

    Example:
        >>> import torch
        >>> coord = torch.tensor([[0, 0], [0, 1], [0, 0]])  # one row of two patches, and padding
        >>> image_from_patches(torch.arange(12.0).reshape(3, 4), coord, torch.tensor([True, True, False]), 2)
        tensor([[[0., 1., 4., 5.],
                 [2., 3., 6., 7.]]])
    """
    height, width = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
    number = len(patches)
    if patch_coord.shape != (number, 2) or patch_valid.shape != (number,):
        raise ValueError(
            f"patch_coord must be ({number}, 2) and patch_valid ({number},), for the patches of one image, not "
            f"{tuple(patch_coord.shape)} and {tuple(patch_valid.shape)}. Choose an image of a batch by its index."
        )
    valid = patch_valid.bool()
    if patches.ndim < 2 or min(height, width) < 1 or patches[0].numel() % (height * width) or not valid.any():
        raise ValueError(
            f"Patches {tuple(patches.shape)} hold no patch of {height} x {width} pixels: see patch_size, patch_valid."
        )
    form = (height, width, -1) if channels_last else (-1, height, width)
    cells: torch.Tensor = patches[valid].flatten(1).unflatten(1, form)
    cells = cells.movedim(-1, 1) if channels_last else cells
    rows, columns = patch_coord[valid].long().unbind(1)
    image = cells.new_zeros(int(rows.max()) + 1, int(columns.max()) + 1, *cells.shape[1:])
    image[rows, columns] = cells
    return image.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2)
