"""ViT-CX: the causal impact of what the tokens' channels show."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from captum_astro.attr._base import Explanation, enlarged, warn_of_features
from captum_astro.attr._batch import Batch, cut
from captum_astro.attr._channels import ChannelMaps, Known, maps_of_layer
from captum_astro.attr._contract import AttributeTo, Common, TensorOrTuple, check_names, contract
from captum_astro.attr._layer import find_tap, timm_model
from captum_astro.attr._split import Split, split_of
from captum_astro.capture.call import Call
from captum_astro.capture.entry import check_unmoved
from captum_astro.capture.features import lacks_classes
from captum_astro.capture.replica import Replica
from captum_astro.capture.target import Output, Target
from captum_astro.functional.attention import widen
from captum_astro.functional.distributions import are_distributions
from captum_astro.functional.vit_cx import as_masks, clusters, impact_map, masked, merged
from captum_astro.kinds import choice, number, whole
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.unwrap import unwrapped

if TYPE_CHECKING:
    from typing_extensions import Unpack

_AT_A_TIME = 50  # perturbed images, as in the authors' code


class ViTCX(Explanation):
    """The channels of the tokens, as masks on the image: ``1/N sum_i s_i M_i / sum_j M_j``.

    ``M_i`` are the channels of one layer, enlarged to the image; similar ones are merged. ``s_i`` is how much of the
    class remains through a mask: ``y(x M_i + Z_i (1 - M_i)) - y(x + Z_i (1 - M_i)) + y(x)``, with noise ``Z_i``. It
    costs two forward passes for each mask, of which there are as many as the channels differ. Signed.

    Source: Xie et al., "ViT-CX: Causal Explanation of Vision Transformers", IJCAI 2023 (arXiv 2211.03064).

    Args:
        forward_func: The model.
        layer: As for `TokenGradCAM`: by default the input of the last block's attention.

    Raises:
        UnsupportedModelError: If no layer is given and the model has neither a layout nor ``feature_info``.
        ValueError: If the layer is not part of the model.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("scenes_vit_tiny_patch4_64", pretrained=True).eval()
        >>> ViTCX(model).attribute(torch.rand(1, 3, 64, 64), target=3).shape
        torch.Size([1, 3, 64, 64])
    """

    family = "perturbation"
    source = "Xie et al., IJCAI 2023, arXiv 2211.03064"
    on_request = True

    def __init__(self, forward_func: nn.Module, layer: nn.Module | str | None = None) -> None:
        super().__init__(forward_func)
        self.layer = layer
        self._known: Known = {}
        replica = Replica(unwrapped(forward_func))
        find_tap(replica.model, replica.of(layer))

    @contract
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: Any = None,
        *,
        output: Output = "probability",
        distance: float = 0.1,
        noise: float = 0.1,
        seed: int = 0,
        **common: Unpack[Common],
    ) -> TensorOrTuple:
        """Explain each image's target.

        Args:
            output: ``y``, the target's softmax ``"probability"``, as published, or its ``"logit"``.
            distance: Channels are merged while one minus their cosine stays below this.
            noise: The standard deviation of the noise, in the units of the inputs.
            seed: Random seed of the noise, which is the same for each image of a batch.
            internal_batch_size: The number of samples, and of perturbed images, at a time; by default all samples, and
                50 perturbed images; with ``"auto"`` as many as fit, and at most 50 perturbed images.
            attribute_to: ``"input"`` returns the inputs' shape, the pixel map shared equally among the channels;
                ``"pixels"`` returns ``(B, 1, H, W)``, ``"grid"`` ``(B, 1, rows, columns)``, the mean of each cell;
                ``"tokens"`` ``(B, n)``, 0 for the prefix tokens.

        Raises:
            UnsupportedModelError: If the model reads no images, or no rows and columns of the image can be found in the
                layer's output.
            ValueError: If an argument has an invalid value, the images cannot be explained, or no gradient reaches the
                patches of this layer.
        """
        check_names(f"{self.get_name()}.attribute", common, Common)
        choice("probability", "logit").check("output", output)
        number().check("distance", distance)
        number().check("noise", noise)
        whole().check("seed", seed)
        with self._private(self.forward_func) as replica:
            layer = replica.of(self.layer)
            layout, _ = find_tap(replica.model, layer)
            batch = Batch(replica, layout, inputs, Target(target, output), common)
            split = split_of(_halved(common.get("internal_batch_size")), batch.device, _AT_A_TIME // 2)
            options = layer, distance, _Noise(noise, seed), split, batch.attribute_to
            found = []
            for part in batch.parts():
                with batch.trying():
                    found.append((part, self._one(part.call, *options)))
            attributions: TensorOrTuple = batch.joined(found)
        return attributions

    def _one(
        self,
        call: Call,
        layer: nn.Module | str | None,
        distance: float,
        noise: _Noise,
        split: Split,
        attribute_to: AttributeTo,
    ) -> torch.Tensor:
        """Run the method on one part."""
        if call.inputs.ndim != 4:
            raise UnsupportedModelError(
                f"ViTCX is not defined for {type(call.model).__name__}, which reads no images: it masks their pixels. "
                f"VTranM and AttnLRP follow texts and lists of patches."
            )
        _check_unmoved(call)
        if call.target.output == "probability" and (why := lacks_classes(call.model)):
            warn_of_features(call.model, why)
        seen = maps_of_layer(replace(call, target=replace(call.target, output="logit")), layer, self._known)
        maps: list[torch.Tensor] = []
        for sample in range(len(call.inputs)):
            masks = _masks(seen, sample, call.inputs, distance)
            impacts = _impacts(cut(call, [sample]), masks, noise, split)
            maps.append(impact_map(masks.flatten(1), impacts).reshape(1, *masks.shape[2:]))
        return _shaped(torch.stack(maps), seen, call.inputs, attribute_to)


def _check_unmoved(call: Call) -> None:
    try:
        check_unmoved(call, timm_model(call.model) if call.layout is None else call.layout.model)
    except UnsupportedModelError as error:  # the grid, which the message offers, would be masked in other places too
        raise UnsupportedModelError(
            f"{type(call.model).__name__} moves the image, by a crop, a margin, a mirror image or the like, so ViTCX "
            f"would mask the wrong pixels. Apply this to the image first."
        ) from error


def _masks(seen: ChannelMaps, sample: int, images: torch.Tensor, distance: float) -> torch.Tensor:
    """``M``, ``(N, 1, H, W)``, of one of the images."""
    channels = widen(seen.activation[sample]).T.reshape(-1, 1, *seen.places.grid)
    masks = as_masks(enlarged(channels, seen.image_size, seen.extent, widen(images), "pixels").flatten(1))
    return merged(masks, clusters(masks, distance)).reshape(-1, 1, *images.shape[2:])


class _Noise:
    """Noise that depends on the seed alone: not on the device, the precision, or how many images run at a time."""

    def __init__(self, deviation: float, seed: int) -> None:
        self._deviation, self._seed = deviation, seed
        self.start()

    def start(self) -> None:
        """Begin again, for another image."""
        self._generator = torch.Generator().manual_seed(self._seed)
        self._last, self._before = -1, self._generator.get_state()

    def like(self, image: torch.Tensor, masks: list[int]) -> torch.Tensor:
        """The noise of the next masks for copies of an image ``(C, H, W)``, or again of those that begin as before."""
        if masks[0] == self._last:
            self._generator.set_state(self._before)
        self._last, self._before = masks[0], self._generator.get_state()
        drawn = [torch.randn(image.shape, generator=self._generator) for _ in masks]
        return self._deviation * torch.stack(drawn).to(image)


@torch.no_grad()
def _impacts(call: Call, masks: torch.Tensor, noise: _Noise, split: Split) -> torch.Tensor:
    """``s``, ``(N,)``, for masks ``(N, 1, H, W)``; two images run for each mask."""
    image, found = widen(call.inputs)[0], []
    noise.start()
    for some in split.parts(list(range(len(masks)))):
        with split.trying():
            through, whole_image = masked(image, masks[some], noise.like(image, some))
            scores = _scores(call, torch.cat([through, whole_image]))
            found.append(scores[: len(some)] - scores[len(some) :])
    return torch.cat(found) + _scores(call, image[None])


def _halved(images: Any) -> Any:
    """The number of masks at a time: each takes two images."""
    return images if images is None or isinstance(images, str) else max(1, images // 2)


def _scores(call: Call, images: torch.Tensor) -> torch.Tensor:
    """``y`` of each of several images that stand in the place of one."""
    count = len(images)
    output = widen(replace(call, arguments=_repeated(call.arguments, count)).run(images.to(call.inputs.dtype)))
    if call.target.output == "probability" and not are_distributions(output):
        if output.ndim < 2 or output.shape[-1] < 2:
            raise ValueError(
                "A model with one output has no softmax probability: pass output='logit', or NAME:output=logit in a "
                "command."
            )
        output = output.softmax(-1)
    return call.target.repeated(count).scores(output).reshape(count)


def _repeated(arguments: tuple[Any, ...], count: int) -> tuple[Any, ...]:
    """Additional arguments of one image, for several; what has no entry for each image is shared."""
    return tuple(
        one.expand(count, *one.shape[1:]) if isinstance(one, torch.Tensor) and one.ndim and len(one) == 1
        else one * count if isinstance(one, list) and len(one) == 1
        else one
        for one in arguments
    )  # fmt: skip


def _shaped(pixels: torch.Tensor, seen: ChannelMaps, images: torch.Tensor, attribute_to: AttributeTo) -> torch.Tensor:
    """Convert maps of the pixels ``(B, 1, H, W)`` to the requested form."""
    if attribute_to == "pixels":
        return pixels.to(images.dtype)
    if attribute_to == "input":
        return (pixels / images.shape[1]).expand_as(images).to(images.dtype).contiguous()
    (height, width), (rows, columns) = seen.image_size, seen.extent
    inside = F.interpolate(pixels, (height, width), mode="area") if pixels.shape[2:] != seen.image_size else pixels
    covered = F.pad(inside, (0, columns - width, 0, rows - height))
    grid = F.adaptive_avg_pool2d(covered, seen.places.grid)
    return seen.shaped(grid.flatten(1), images, attribute_to)
