"""Batches for the training loop; their order is a function of seed and epoch, so a run can resume anywhere."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F

Batch = tuple[torch.Tensor, ...]
_MOVED = 4  # pixels, as is usual for images of 32 x 32


class Source(ABC):
    """Samples in memory, requested batch by batch."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples per epoch."""

    @abstractmethod
    def batch(self, indices: torch.Tensor) -> Batch:
        """The samples with these indices, long ``(B,)``, as tensors whose first dimension is B."""

    def steps_per_epoch(self, batch_size: int) -> int:
        """Complete batches per epoch; the remainder is dropped and reshuffled in the next epoch."""
        return max(1, len(self) // batch_size)

    def order(self, epoch: int, batch_size: int, seed: int) -> list[torch.Tensor]:
        """The indices of each batch of an epoch: `steps_per_epoch` tensors."""
        shuffled = torch.randperm(len(self), generator=generator(seed, epoch))
        return list(shuffled[: self.steps_per_epoch(batch_size) * batch_size].split(batch_size))


class Images(Source):
    """Images and their classes.

    Args:
        images: ``(N, C, H, W)`` uint8.
        labels: Long ``(N,)``.
        mean: Per channel, of pixels in [0, 1].
        std: Likewise.
        augment: Flip every other image and shift each by up to 4 pixels, at random; the border is filled with black.
        device: Where images are kept and batches are made.

    Example:
        >>> images = Images(torch.zeros(5, 3, 8, 8, dtype=torch.uint8), torch.arange(5), (0.5,) * 3, (0.5,) * 3)
        >>> x, y = images.batch(torch.tensor([3, 1]))
        >>> x.shape, y.tolist()
        (torch.Size([2, 3, 8, 8]), [3, 1])
    """

    def __init__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        *,
        augment: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        self._images, self._labels = images.to(device), labels.to(device)
        self._mean, self._std = (torch.tensor(x, device=device)[:, None, None] for x in (mean, std))
        self._augment = augment

    def __len__(self) -> int:
        return len(self._labels)

    def batch(self, indices: torch.Tensor) -> Batch:
        """Normalised images ``(B, C, H, W)`` and classes ``(B,)``."""
        indices = indices.to(self._labels.device)
        images = self._images[indices]
        if self._augment:
            images = shifted(mirrored(images), _MOVED)
        return (images.float() / 255 - self._mean) / self._std, self._labels[indices]


def mirrored(images: torch.Tensor) -> torch.Tensor:
    """Flip each image with probability one half, using torch's generator."""
    flip = (torch.rand(len(images)) < 0.5).to(images.device)
    return torch.where(flip[:, None, None, None], images.flip(-1), images)


def shifted(images: torch.Tensor, most: int) -> torch.Tensor:
    """Shift each image by up to a number of pixels in both directions, using torch's generator.

    Args:
        images: ``(B, C, H, W)``.
        most: Maximum shift in pixels.

    Returns:
        ``(B, C, H, W)``, filled with 0 at the border.
    """
    height, width = images.shape[-2:]
    top, left = torch.randint(0, 2 * most + 1, (2, len(images))).to(images.device)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    which = torch.arange(len(images), device=images.device)[:, None, None]
    cut: torch.Tensor = F.pad(images, (most,) * 4)[which, :, rows[:, :, None], columns[:, None, :]]
    return cut.permute(0, 3, 1, 2)


class Texts(Source):
    """Texts of different lengths and their classes; batches hold texts of similar length, which reduces padding.

    Args:
        texts: Long ``(n,)`` each, at least one token.
        labels: Long ``(N,)``.
        padding: The id of padding.
        device: Where batches are put.

    Example:
        >>> texts = Texts([torch.tensor([5, 6]), torch.tensor([7])], torch.tensor([1, 0]))
        >>> texts.batch(torch.tensor([0, 1]))[0]
        tensor([[5, 6],
                [7, 0]])
    """

    _POOL = 50  # batches whose texts are sorted by length together

    def __init__(
        self, texts: list[torch.Tensor], labels: torch.Tensor, padding: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        self._texts, self._labels = texts, labels
        self._padding, self._device = padding, device
        self.lengths = torch.tensor([len(text) for text in texts])

    def __len__(self) -> int:
        return len(self._texts)

    def batch(self, indices: torch.Tensor) -> Batch:
        """Token ids ``(B, longest)`` and classes ``(B,)``."""
        padded = torch.nn.utils.rnn.pad_sequence(
            [self._texts[index] for index in indices.tolist()], batch_first=True, padding_value=self._padding
        )
        return padded.to(self._device), self._labels[indices].to(self._device)

    def order(self, epoch: int, batch_size: int, seed: int) -> list[torch.Tensor]:
        """Shuffled, sorted by length within pools, split into batches, and the batches shuffled."""
        random = generator(seed, epoch)
        kept = torch.randperm(len(self), generator=random)[: self.steps_per_epoch(batch_size) * batch_size]
        batches: list[torch.Tensor] = []
        for pool in kept.split(batch_size * self._POOL):
            batches += pool[self.lengths[pool].argsort(stable=True)].split(batch_size)
        return [batches[place] for place in torch.randperm(len(batches), generator=random).tolist()]


class TokenStream(Source):
    """Windows of one long text; each epoch splits it at different positions.

    Args:
        ids: Long ``(n,)``.
        length: Tokens per window.
        device: Where batches are put.

    Raises:
        ValueError: If the text has fewer than two windows.

    Example:
        >>> x, y = TokenStream(torch.arange(30), length=10).batch(torch.tensor([4]))
        >>> x[0, :3].tolist(), y[0, :3].tolist()
        ([4, 5, 6], [5, 6, 7])
    """

    def __init__(self, ids: torch.Tensor, length: int, device: torch.device | str = "cpu") -> None:
        if len(ids) < 2 * length + 1:
            raise ValueError(f"The text has {len(ids)} tokens, too few for windows of {length}. Lower the length.")
        self._ids, self._length, self._device = ids, length, device

    def __len__(self) -> int:
        return (len(self._ids) - 1) // self._length - 1

    def batch(self, indices: torch.Tensor) -> Batch:
        """Windows ``(B, length)`` that begin at these tokens, and the tokens that follow each of theirs."""
        seen = self._ids[indices[:, None] + torch.arange(self._length + 1)].to(self._device)
        return seen[:, :-1], seen[:, 1:]

    def order(self, epoch: int, batch_size: int, seed: int) -> list[torch.Tensor]:
        """Where each window of each batch begins."""
        random = generator(seed, epoch)
        offset = int(torch.randint(0, self._length, (), generator=random))
        starts = offset + self._length * torch.randperm(len(self), generator=random)
        return list(starts[: self.steps_per_epoch(batch_size) * batch_size].split(batch_size))


def generator(seed: int, epoch: int) -> torch.Generator:
    """The random generator of an epoch."""
    return torch.Generator().manual_seed((seed << 20) + epoch)
