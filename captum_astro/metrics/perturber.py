"""The engine of the perturbation tests: runs a model on images whose pixels are removed in the order of a map."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple, get_args

import torch
from torchvision.transforms.functional import gaussian_blur

from captum_astro.functional.distributions import are_distributions
from captum_astro.metrics.removal import removal_levels

Baseline = Literal["black", "blurred"]
_BLUR = (11 / 224, 5 / 224)  # the kernel and its standard deviation, in sides of the image: RISE's at 224 pixels


class Curves(NamedTuple):
    """Logits at every level, ``(M, L, C)`` each: most important pixels first, and least important first."""

    positive: torch.Tensor
    negative: torch.Tensor


class Perturber:
    """Logits of a model as pixels are set to 0 in [0, 1] space, before normalisation, or to those of the blurred image.

    For ``steps`` equal steps there are ``L = steps + 1`` levels, rounded as in `removal.removed_counts`. A map costs
    only ``steps - 1`` forward passes per direction: the unperturbed image is run by the caller, and the black image is
    the same for all, so it is run once per size and cached (a blurred one is run once per image). Ranks are computed
    once for both directions. The image is normalised once: because normalisation acts on every pixel separately, a
    perturbed image is the normalised baseline where pixels are removed and the normalised image elsewhere, bit for bit.

    A model that ends in a softmax is recognised by its first outputs, which sum to 1, and its probabilities are turned
    into logits, so that no softmax is taken twice.

    The weights must not change during the object's lifetime. Nothing is recorded for a backward pass.

    Args:
        model: Maps normalised images ``(N, C, H, W)`` to logits ``(N, classes)``, in eval mode.
        normalise: Maps pixels in [0, 1] to the model's input, every pixel separately, ``(N, C, H, W)``.
        steps: The number of equal steps from nothing to everything removed; 20 are the papers' 5 %.
        batch_size: Perturbed images at a time, from one map or from several. On a CPU 8 to 20 are best.
        autocast: A lower precision for the model's forward passes; None leaves it unchanged.
        baseline: What removed pixels become: ``"black"``, or ``"blurred"``, those of the image under a Gaussian blur
            (kernel of 11 pixels, standard deviation 5, for an image of 224 pixels, and in proportion).

    Raises:
        ValueError: If ``steps`` or ``batch_size`` is below 1, or the baseline is unknown.

    Example:
        >>> model = lambda x: x.mean((2, 3))
        >>> engine = Perturber(model, lambda pixels: pixels / 2, steps=2)
        >>> pixels, maps = torch.tensor([[[[0.2, 0.6]]]]), torch.tensor([[[1.0, 2.0]]])
        >>> curves = engine.curves(pixels, maps, engine.untouched(pixels))
        >>> curves.positive[0, :, 0], curves.negative[0, :, 0]
        (tensor([0.2000, 0.0500, 0.0000]), tensor([0.2000, 0.1500, 0.0000]))
    """

    def __init__(
        self,
        model: Callable[[torch.Tensor], torch.Tensor],
        normalise: Callable[[torch.Tensor], torch.Tensor],
        *,
        steps: int = 20,
        batch_size: int = 64,
        autocast: torch.dtype | None = None,
        baseline: Baseline = "black",
    ) -> None:
        if not 1 <= steps <= 32767 or batch_size < 1:
            raise ValueError(
                f"steps from 1 to 32767 and batch_size from 1 are needed, not {steps!r} and {batch_size!r}."
            )
        if baseline not in get_args(Baseline):
            raise ValueError(f"baseline must be {' or '.join(get_args(Baseline))}, not {baseline!r}.")
        self.model, self.normalise = model, normalise
        self.steps, self.batch_size, self.autocast = steps, batch_size, autocast
        self.baseline = baseline
        self._blank: dict[tuple[object, ...], torch.Tensor] = {}
        self._ends_in_softmax: bool | None = None

    def with_baseline(self, baseline: Baseline) -> Perturber:
        """The same model with other pixels in the place of removed ones.

        Args:
            baseline: ``"black"`` or ``"blurred"``.
        """
        if baseline == self.baseline:
            return self
        same: dict[str, Any] = {"steps": self.steps, "batch_size": self.batch_size, "autocast": self.autocast}
        return Perturber(self.model, self.normalise, **same, baseline=baseline)

    def untouched(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits of whole images.

        Args:
            pixels: ``(B, C, H, W)`` in [0, 1], on the model's device.

        Returns:
            ``(B, classes)``, float32 at least.

        Raises:
            ValueError: If the images are invalid, the model is in training mode, or it does not return logits.
        """
        images = self._normalised(pixels)
        return torch.cat([self._forward(part) for part in images.split(self.batch_size)])

    def blank(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits of the blank image, run once for each size, dtype and device, then cached.

        Args:
            pixels: Any images of the size, ``(B, C, H, W)`` in [0, 1].

        Returns:
            ``(1, classes)``, float32 at least.

        Raises:
            ValueError: As for `untouched`, or if ``normalise`` mixes pixels.
        """
        key = (pixels.shape[1:], pixels.dtype, pixels.device)
        if key not in self._blank:
            self._check(pixels[:1])
            self._blank[key] = self._forward(self.normalise(torch.zeros_like(pixels[:1])))
        return self._blank[key]

    def curves(
        self, pixels: torch.Tensor, maps: torch.Tensor, untouched: torch.Tensor, owner: torch.Tensor | None = None
    ) -> Curves:
        """Both curves of every map.

        Args:
            pixels: B images ``(B, C, H, W)`` in [0, 1], on the model's device.
            maps: M maps ``(M, H, W)`` or ``(M, 1, H, W)``, higher is more important; on any device.
            untouched: ``(B, classes)``, from `untouched`.
            owner: ``(M,)``, the index of the image that each map explains, so that maps of many methods share it; None
                if each image has one map.

        Returns:
            Logits ``(M, L, classes)`` of both directions: level 0 is the unperturbed image, the last one is blank.

        Raises:
            ValueError: If shapes do not match, a value is NaN or infinite, pixels are far outside [0, 1], the model is
                in training mode, or ``normalise`` mixes pixels.
        """
        positive, negative = self._run(pixels, maps, untouched, owner, (0, 1))
        return Curves(positive, negative)

    def curve(
        self,
        pixels: torch.Tensor,
        maps: torch.Tensor,
        untouched: torch.Tensor,
        owner: torch.Tensor | None = None,
        *,
        most_important_first: bool,
    ) -> torch.Tensor:
        """One of the two curves, at half the cost; otherwise as `curves`."""
        return self._run(pixels, maps, untouched, owner, (0 if most_important_first else 1,))[0]

    def _run(
        self,
        pixels: torch.Tensor,
        maps: torch.Tensor,
        untouched: torch.Tensor,
        owner: torch.Tensor | None,
        directions: tuple[int, ...],
    ) -> list[torch.Tensor]:
        images = self._normalised(pixels)
        owners = _owners(pixels, maps, owner)
        end = self._end(pixels)
        if untouched.shape != (len(pixels), end.shape[1]):
            raise ValueError(
                f"untouched: ({len(pixels)}, {end.shape[1]}) is needed, not {tuple(untouched.shape)}; see untouched()."
            )
        both = removal_levels(maps.to(pixels.device), self.steps)
        levels = torch.cat([both[direction] for direction in directions])
        filling = self.normalise(self._filling(pixels))
        between = untouched.new_empty(len(levels), self.steps - 1, untouched.shape[1])
        self._fill(between.flatten(0, 1), images, filling, levels, owners * len(directions))
        start = untouched[owners, None]
        parts = between.split(len(owners)) if len(owners) else [between] * len(directions)
        return [torch.cat([start, part, end[owners, None].to(start)], 1) for part in parts]

    def _filling(self, pixels: torch.Tensor) -> torch.Tensor:
        """What removed pixels become, for each image."""
        if self.baseline == "black":
            return torch.zeros_like(pixels[:1]).expand_as(pixels)
        side = max(pixels.shape[-2:])
        kernel = [min(max(3, 2 * round((_BLUR[0] * side - 1) / 2) + 1), 2 * length - 1) for length in pixels.shape[-2:]]
        blurred: torch.Tensor = gaussian_blur(pixels, kernel[::-1], [_BLUR[1] * side] * 2)
        return blurred

    def _end(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits of the images without any of their pixels, ``(B, classes)``."""
        if self.baseline == "black":
            return self.blank(pixels).expand(len(pixels), -1)
        return self.untouched(self._filling(pixels))

    def _fill(
        self,
        logits: torch.Tensor,
        images: torch.Tensor,
        filling: torch.Tensor,
        levels: torch.Tensor,
        owners: list[int],
    ) -> None:
        """Run the items, map by map and level by level, in full batches that may span several maps."""
        inner = self.steps - 1
        wanted = torch.arange(1, self.steps, dtype=levels.dtype, device=levels.device)[:, None, None]
        buffer = images.new_empty(min(self.batch_size, len(logits)), *images.shape[1:])
        for begin in range(0, len(logits), self.batch_size):
            batch = buffer[: len(logits) - begin]
            for row, low, high in _rows(begin, begin + len(batch), inner):
                gone = levels[row] <= wanted[low:high]
                place = row * inner + low - begin
                out = batch[place : place + high - low]
                torch.where(gone[:, None], filling[owners[row]], images[owners[row]], out=out)
            logits[begin : begin + len(batch)] = self._forward(batch)

    def _forward(self, images: torch.Tensor) -> torch.Tensor:
        if getattr(self.model, "training", False):
            raise ValueError("The model is in training mode; call model.eval() first.")
        lower: AbstractContextManager[object] = nullcontext()
        if self.autocast is not None:
            lower = torch.autocast(images.device.type, self.autocast)
        with torch.inference_mode(), lower:
            logits = self.model(images)
        if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != len(images):
            found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise ValueError(f"The model gives {found} for {len(images)} images; logits (N, classes) are needed.")
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32), copy=True)  # not an inference tensor
        if self._ends_in_softmax is None and len(logits):
            self._ends_in_softmax = are_distributions(logits)
        return logits.clamp_min(torch.finfo(logits.dtype).tiny).log() if self._ends_in_softmax else logits

    def _normalised(self, pixels: torch.Tensor) -> torch.Tensor:
        if pixels.ndim != 4 or not pixels.is_floating_point():
            raise ValueError(f"pixels: float (B, C, H, W) is needed, not {pixels.dtype} {tuple(pixels.shape)}.")
        if pixels.numel():
            low, high = (float(end) for end in pixels.detach().aminmax())
            if not (low >= -0.5 and high <= 1.5):  # resizing may overshoot slightly
                raise ValueError(
                    f"pixels: values in [0, 1] are needed, not {low:.3g} .. {high:.3g}; divide bytes by 255, and leave "
                    "the normalisation to this class."
                )
        return self.normalise(pixels.detach())

    def _check(self, pixels: torch.Tensor) -> None:
        """Whether removing pixels before and after normalisation is the same."""
        gone = torch.arange(pixels.shape[-1], device=pixels.device) % 2 == 0
        black, image = self.normalise(torch.zeros_like(pixels)), self.normalise(pixels)
        if not torch.allclose(self.normalise(pixels.masked_fill(gone, 0)), torch.where(gone, black, image)):
            raise ValueError(
                "normalise: every pixel must be treated by itself, as (pixels - mean) / std with fixed numbers does; "
                "this one makes a pixel depend on others."
            )


def _rows(begin: int, end: int, inner: int) -> Iterator[tuple[int, int, int]]:
    """The items ``begin`` to ``end`` as (map, first level, end of levels), counted from the first inner level."""
    while begin < end:
        row, low = divmod(begin, inner)
        high = min(inner, low + end - begin)
        yield row, low, high
        begin += high - low


def _owners(pixels: torch.Tensor, maps: torch.Tensor, owner: torch.Tensor | None) -> list[int]:
    owners: list[int] = list(range(len(maps))) if owner is None else owner.tolist()
    if len(owners) != len(maps) or maps.shape[-2:] != pixels.shape[-2:]:
        raise ValueError(
            f"maps {tuple(maps.shape)} do not fit pixels {tuple(pixels.shape)}"
            + ("" if owner is None else f" with {len(owners)} owners")
            + "; bring them to the size of the image, one owner for each map."
        )
    if owner is None and len(maps) != len(pixels):
        raise ValueError(f"{len(maps)} maps for {len(pixels)} images: say with owner which image each map explains.")
    if any(not 0 <= index < len(pixels) for index in owners):
        raise ValueError(f"owner: indices from 0 to {len(pixels) - 1} are needed, not {owners}.")
    return owners
