"""Which source tokens each token consists of: windows, merged patches, tokens after a prefix."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F

Grid = tuple[int, int]


@dataclass(frozen=True, eq=False)
class TokenMap:
    """Which source tokens each target token consists of; sparse, and the same for every image.

    Targets are arranged in groups, such as windows. A group is one more sample of a batch: ``B`` images with ``groups``
    windows each are ``B * groups`` samples, image by image.

    Attributes:
        index: The source tokens of each target, ``(groups, targets, k)`` integers; -1 for none, as in padding.
        tokens: The number of source tokens, ``n``.
        grid: Rows and columns of the targets, if one group is a new grid of patch tokens; None otherwise.
        share: The weight of each source, ``(B, groups, targets, k)``; None for equal weights that sum to 1.
        padded: Whether there may be a -1; otherwise nothing has to be masked.

    Example:
        >>> import torch
        >>> windows = window_map((4, 4), (2, 2), (0, 0))
        >>> windows.gather(torch.arange(16.0)[None])[1]  # the second of four windows
        tensor([2., 3., 6., 7.])
        >>> windows.scatter(torch.ones(4, 4)).shape  # 4 windows of one image, back to its 16 tokens
        torch.Size([1, 16])
    """

    index: torch.Tensor
    tokens: int
    grid: Grid | None = None
    share: torch.Tensor | None = None
    padded: bool = True

    @property
    def present(self) -> torch.Tensor:
        """Whether each target has a source, ``(groups, targets)`` bool: False for padding."""
        return (self.index >= 0).any(-1)

    def to(self, device: torch.device) -> TokenMap:
        """A copy on a device."""
        if self.index.device == device:
            return self
        return replace(self, index=self.index.to(device), share=None if self.share is None else self.share.to(device))

    def with_share(self, share: torch.Tensor) -> TokenMap:
        """A copy with measured weights ``(B, groups, targets, k)``."""
        return replace(self, share=share)

    def gather_each(self, x: torch.Tensor) -> torch.Tensor:
        """All sources of every target: ``(B, n, ...)`` to ``(B * groups, targets, k, ...)``; 0 if there is none."""
        groups, targets, k = self.index.shape
        if self.padded:  # append a zero token to index for -1
            x = torch.cat([x, torch.zeros_like(x[:, :1])], 1)
        found = x.index_select(1, self._flat())
        return found.reshape(len(x) * groups, targets, k, *x.shape[2:])

    def gather(self, x: torch.Tensor) -> torch.Tensor:
        """Each target as the weighted sum of its sources: ``(B, n, ...)`` to ``(B * groups, targets, ...)``."""
        found = self.gather_each(x)
        if found.shape[2] == 1 and self.share is None:
            return found.squeeze(2)
        weights = self._weights(found)
        weights = weights.expand(len(x), -1, -1, -1).flatten(0, 1)
        return (found * weights.reshape(*weights.shape, *[1] * (found.ndim - 3))).sum(2)

    def only(self, targets: list[int]) -> TokenMap:
        """The map restricted to some targets of every group."""
        share = None if self.share is None else self.share[:, :, targets]
        return replace(self, index=self.index[:, targets], grid=None, share=share)

    def gather_row(self, row: torch.Tensor) -> torch.Tensor:
        """As `gather`, for a row over the tokens: ``(B, ..., n)`` to ``(B * groups, ..., targets)``."""
        return self.gather(row.movedim(-1, 1)).movedim(1, -1)

    def scatter(self, row: torch.Tensor) -> torch.Tensor:
        """Convert a row over the targets to a row over the source tokens, by their weights.

        Args:
            row: ``(B * groups, ..., targets)``.

        Returns:
            ``(B, ..., n)``. Values that belong to no token are dropped.
        """
        groups, targets, k = self.index.shape
        rows = row.reshape(-1, groups, *row.shape[1:]).movedim(1, -2)
        weights = self._weights(row)
        between = [1] * (rows.ndim - 3)
        weights = weights.reshape(weights.shape[0], *between, groups, targets, k)
        parts = (rows[..., None] * weights).flatten(-3)
        found = parts.new_zeros(*parts.shape[:-1], self.tokens + 1)
        return found.index_add_(-1, self._flat(), parts)[..., : self.tokens]

    def _flat(self) -> torch.Tensor:
        index = torch.where(self.index < 0, self.tokens, self.index) if self.padded else self.index
        return index.flatten()

    def _weights(self, like: torch.Tensor) -> torch.Tensor:
        if self.share is not None:
            return self.share.to(like)
        present = (self.index >= 0).to(like)
        return (present / present.sum(-1, keepdim=True).clamp(min=1))[None]


@lru_cache(maxsize=64)
def window_map(grid: Grid, size: Grid, shift: Grid = (0, 0), padded_first: bool = False) -> TokenMap:
    """Windows of a grid, which is first rolled by a shift and padded to whole windows.

    Args:
        grid: Rows and columns of tokens.
        size: Rows and columns of a window.
        shift: How far the grid is rolled up and to the left.
        padded_first: Pad before rolling, as torchvision and Hugging Face do; timm rolls first.
    """
    places, by = torch.arange(grid[0] * grid[1]).reshape(1, *grid), (-shift[0], -shift[1])
    padded = _padded(places, size).roll(by, (1, 2)) if padded_first else _padded(places.roll(by, (1, 2)), size)
    places = padded[0]
    rows, columns = places.shape[0] // size[0], places.shape[1] // size[1]
    index = places.reshape(rows, size[0], columns, size[1]).transpose(1, 2).reshape(rows * columns, -1, 1)
    return TokenMap(index, grid[0] * grid[1], padded=index.numel() > grid[0] * grid[1])


@lru_cache(maxsize=64)
def dilated_map(grid: Grid, size: Grid) -> TokenMap:
    """Groups of tokens that are spread evenly over the whole grid, which their number of rows and columns divides.

    Args:
        grid: Rows and columns of tokens.
        size: Rows and columns of a group.

    Raises:
        ValueError: If the size does not divide the grid.
    """
    if grid[0] % size[0] or grid[1] % size[1]:
        raise ValueError(f"Groups of {size[0]} x {size[1]} tokens do not divide a grid of {grid[0]} x {grid[1]}.")
    places = torch.arange(grid[0] * grid[1]).reshape(size[0], -1, size[1], grid[1] // size[1])
    return TokenMap(places.permute(1, 3, 0, 2).reshape(-1, size[0] * size[1], 1), grid[0] * grid[1], padded=False)


@lru_cache(maxsize=64)
def merge_map(grid: Grid, size: Grid = (2, 2), columns_first: bool = True) -> TokenMap:
    """Patches of a grid that are merged into one token each; the grid is padded at the right and at the bottom.

    Args:
        grid: Rows and columns of tokens.
        size: Rows and columns of a merged patch.
        columns_first: The order of the sources: down each column of a patch, as Swin concatenates them, or along each
            row.
    """
    places = _padded(torch.arange(grid[0] * grid[1]).reshape(1, *grid), size)[0]
    rows, columns = places.shape[0] // size[0], places.shape[1] // size[1]
    cut = places.reshape(rows, size[0], columns, size[1])
    index = cut.permute(0, 2, 3, 1) if columns_first else cut.permute(0, 2, 1, 3)
    index = index.reshape(1, rows * columns, -1)
    return TokenMap(index, grid[0] * grid[1], (rows, columns), padded=index.numel() > grid[0] * grid[1])


@lru_cache(maxsize=64)
def convolution_map(grid: Grid, size: Grid, stride: Grid, padding: Grid = (0, 0)) -> TokenMap:
    """What each output of a convolution sees: the tokens under its kernel, row by row; nothing in the padding.

    Args:
        grid: Rows and columns of tokens.
        size: Rows and columns of the kernel.
        stride: Its steps down and to the right.
        padding: Rows and columns that are added on either side of the grid.
    """
    return kernel_map(grid, size, stride, (padding[1], padding[1], padding[0], padding[0]))


@lru_cache(maxsize=64)
def same_map(grid: Grid, size: Grid, stride: Grid) -> TokenMap:
    """As `convolution_map`, padded as TensorFlow does: one output for each step, the odd rest at the end."""
    top, left = (max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(grid, size, stride, strict=True))
    return kernel_map(grid, size, stride, (left // 2, left - left // 2, top // 2, top - top // 2))


@lru_cache(maxsize=64)
def outlook_map(grid: Grid, size: Grid, stride: Grid, padding: Grid) -> TokenMap:
    """Windows that overlap: the tokens under the kernel of a convolution, as in `convolution_map`, are one window."""
    windows = convolution_map(grid, size, stride, padding)
    return TokenMap(windows.index.transpose(0, 1).transpose(1, 2).contiguous(), windows.tokens, padded=windows.padded)


def kernel_map(grid: Grid, size: Grid, stride: Grid, padding: tuple[int, int, int, int]) -> TokenMap:
    """As `convolution_map`, with another padding on every side: left, right, above, below."""
    places = F.pad(torch.arange(grid[0] * grid[1]).reshape(1, *grid), padding, value=-1)[0]
    seen = places.unfold(0, size[0], stride[0]).unfold(1, size[1], stride[1])
    index = seen.reshape(1, -1, size[0] * size[1])
    return TokenMap(index, grid[0] * grid[1], (seen.shape[0], seen.shape[1]), padded=bool((index < 0).any()))


@lru_cache(maxsize=64)
def spread_map(grid: Grid, size: Grid) -> TokenMap:
    """Coarse queries, each of whose outputs is given to all tokens of its cell; the last cells may be incomplete.

    Args:
        grid: Rows and columns of tokens.
        size: Rows and columns of a cell.
    """
    cells = merge_map(grid, size, columns_first=False)
    return replace(cells, grid=None, share=(cells.index >= 0).float()[None])


def with_prefix(tokens: TokenMap, prefix: int) -> TokenMap:
    """The map of a sequence that begins with prefix tokens, each of which remains: in one more place ``k``.

    Args:
        tokens: The map of the patch tokens, with one group.
        prefix: The number of prefix tokens.
    """
    own = torch.arange(prefix).reshape(1, prefix, 1)
    patches = torch.where(tokens.index < 0, -1, tokens.index + prefix)
    index = torch.cat([F.pad(own, (patches.shape[2], 0), value=-1), F.pad(patches, (0, 1), value=-1)], 1)
    return TokenMap(index, tokens.tokens + prefix, tokens.grid)


@lru_cache(maxsize=64)
def tail_map(tokens: int, first: int) -> TokenMap:
    """The tokens from ``first`` on, as for a pooling head that does not read the prefix tokens."""
    return TokenMap(torch.arange(first, tokens).reshape(1, -1, 1), tokens, padded=False)


@lru_cache(maxsize=64)
def first_map(tokens: int, number: int) -> TokenMap:
    """The first tokens alone, as for a class token that is the only query."""
    return TokenMap(torch.arange(number).reshape(1, -1, 1), tokens, padded=False)


@lru_cache(maxsize=64)
def preceded_map(tokens: int, new: int) -> TokenMap:
    """All tokens, after new ones that consist of none of them."""
    return TokenMap(F.pad(torch.arange(tokens), (new, 0), value=-1).reshape(1, -1, 1), tokens)


def _padded(places: torch.Tensor, size: Grid) -> torch.Tensor:
    """Indices ``(1, rows, columns)`` padded with -1 to a multiple of ``size``."""
    return F.pad(places, (0, -places.shape[2] % size[1], 0, -places.shape[1] % size[0]), value=-1)
