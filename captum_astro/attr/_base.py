"""Base classes of all methods: Captum's interface, image in and image out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from captum.attr import GradientAttribution
from torch import nn

from captum_astro.attr._batch import Batch
from captum_astro.attr._contract import AttributeTo, Layered, TensorOrTuple, check_names
from captum_astro.attr._inputs import block_numbers
from captum_astro.attr._patches import spread
from captum_astro.caller import warn
from captum_astro.capture.call import Call
from captum_astro.capture.capture import capture
from captum_astro.capture.carry import Update, carry
from captum_astro.capture.entry import check_unmoved
from captum_astro.capture.guard import private
from captum_astro.capture.records import Pass
from captum_astro.capture.replica import Replica
from captum_astro.capture.target import Output, Target
from captum_astro.capture.wanted import Streams, Wanted
from captum_astro.functional.attention import widen
from captum_astro.kinds import whole
from captum_astro.layouts.base import Layout, layout_for
from captum_astro.layouts.unwrap import unwrapped


class Explanation(GradientAttribution):
    """Base of all methods.

    Class attributes to be set by a method: ``family``, ``source`` (one line), ``needs_gradient``; ``on_request`` if it
    costs many passes, so that ``all`` leaves it out.

    Args:
        forward_func: A `torch.nn.Module`.

    Raises:
        TypeError: If it is not a module.
        UnsupportedModelError: If it is a ScriptModule, or recomputes its layers in the backward pass.
    """

    family: str
    source: str
    needs_gradient: bool = True
    on_request: bool = False

    def __init__(self, forward_func: nn.Module) -> None:
        super().__init__(forward_func)
        unwrapped(forward_func)

    @classmethod
    def get_name(cls) -> str:
        """The class name; Captum's default inserts a space before every capital."""
        return cls.__name__

    @contextlib.contextmanager
    def _private(self, model: nn.Module, least: torch.dtype | None = None) -> Iterator[Replica]:
        """A copy of a model to run; warn if its weights, which the copy shares, change in the meantime."""
        with private(model, least) as replica:
            before = [parameter._version for parameter in model.parameters()]
            yield replica
        if before != [parameter._version for parameter in model.parameters()]:
            warn(
                f"The weights of {type(model).__name__} changed while it was explained, as by a training step in "
                f"another thread, so the map belongs to no single state of it. Explain a copy.deepcopy of the model."
            )


def warn_of_features(model: nn.Module, why: str) -> None:
    """Warn that the softmax of a model's features is explained."""
    warn(
        f"{type(model).__name__} {why}: their softmax is not a probability. Pass output='logit' (NAME:output=logit to "
        f"a command) to explain one feature, or a module around the model that returns what you ask about, such as "
        f"the similarity to a text: captum_astro.text_target."
    )


class TokenAttribution(Explanation):
    """Base of the methods that propagate a row back from the last layer to the first.

    A method declares its options in ``attribute``, and what it computes for a layer in an `Update`.

    Args:
        forward_func: A timm model, a wrapper around one, or an instance of a class with a registered layout.

    Raises:
        UnsupportedModelError: If the model has no layout.
    """

    needs_stream_gradients: Streams | None = None
    cuts_attention: bool = False  # gradients pass around the attention of later layers
    reads_last: bool = False  # only the last attention layer, or a pooling head if no layers are chosen

    def __init__(self, forward_func: nn.Module) -> None:
        super().__init__(forward_func)
        layout_for(Replica(unwrapped(forward_func)).model)

    def _explain(
        self,
        inputs: TensorOrTuple,
        target: Any,
        update: Update,
        common: Layered,
        output: Output = "logit",
        start_layer: int = 0,
        least: torch.dtype | None = None,
    ) -> TensorOrTuple:
        """Run the method on a batch, in parts if requested, in at least this precision."""
        check_names(f"{self.get_name()}.attribute", common, Layered)
        with self._private(self.forward_func, least) as replica:
            layout = layout_for(replica.model)
            blocks = self._blocks(layout, common, start_layer)
            wanted = Wanted(self.needs_gradient, blocks, self.needs_stream_gradients, cut=self.cuts_attention)
            if layout.approximate:
                warn(
                    f"{type(layout.model).__name__} mixes tokens where {self.get_name()} is only approximate: "
                    f"{'; '.join(layout.approximate)}."
                )
            batch = Batch(replica, layout, inputs, Target(target, output), common)
            found = []
            for part in batch.parts():
                with batch.trying():
                    found.append((part, self._one(part.call, wanted, update, batch.attribute_to)))
            attributions: TensorOrTuple = batch.joined(found)
        return attributions

    def _one(self, call: Call, wanted: Wanted, update: Update, attribute_to: AttributeTo) -> torch.Tensor:
        """Run the method on one part, and convert its tokens to the requested form."""
        assert call.layout is not None
        layout, passed = call.layout, self._pass(call, wanted)
        if attribute_to in ("input", "pixels"):
            check_unmoved(call, layout.model)
        tokens = self._row(call, wanted, passed, update)
        if not self.needs_gradient and call.target.classes is not None:
            call.target.scores(passed.output)  # the class has no effect, but validate the target
        if self.needs_gradient and call.target.output == "probability" and passed.features:
            warn_of_features(layout.model, passed.features)
        patches = tokens if layout.reads_text else tokens[:, layout.num_prefix_tokens :]
        if not patches.flatten(1).any(1).all():
            warn(
                f"{self.get_name()} gives a map that is zero everywhere: no layer has a positive term, or the "
                f"gradient is zero, as that of the probability of a class that is certain."
            )
        if layout.reads_text:
            return tokens
        return shaped(tokens, layout, passed, call.inputs, attribute_to)

    def _pass(self, call: Call, wanted: Wanted) -> Pass:
        """The pass that is read; with rules that modify the gradients, where a method has some."""
        return capture(call, wanted)

    def _row(self, call: Call, wanted: Wanted, passed: Pass, update: Update) -> torch.Tensor:
        """The relevance of every token, ``(B, n)``: the row that is propagated back through all layers."""
        return carry(passed, update)

    def _blocks(self, layout: Layout, common: Layered, start_layer: int) -> set[int] | None:
        whole().check("start_layer", start_layer)
        layers: Iterable[int] | slice | None = common.get("layers")
        if self.reads_last and layers is None:
            layers = [layout.last_attention]
        if start_layer:
            if layers is not None:
                raise ValueError("Choose the blocks by layers= or by start_layer=, not by both.")
            layers = slice(start_layer, None)
        return block_numbers(layers, layout.stages[-1].block + 1)


def shaped(
    tokens: torch.Tensor, layout: Layout, passed: Pass, images: torch.Tensor, attribute_to: AttributeTo
) -> torch.Tensor:
    """Convert tokens ``(B, n)`` to tokens, grid, patches or image; a map ``C`` ``(B, n, n)`` is returned unchanged."""
    if attribute_to == "tokens":
        return tokens.to(images.dtype)
    if layout.patch_lists is not None:
        return spread(tokens[:, layout.num_prefix_tokens :], images, layout.patch_lists)
    grid = tokens[:, layout.num_prefix_tokens :].reshape(-1, 1, *passed.grid)
    return enlarged(grid, passed.image_size, passed.extent, images, attribute_to)


def enlarged(
    grid: torch.Tensor,
    image_size: tuple[int, int],
    extent: tuple[int, int],
    images: torch.Tensor,
    attribute_to: AttributeTo,
) -> torch.Tensor:
    """A grid ``(B, 1, h, w)`` unchanged, upsampled bilinearly to pixels, or also shared among the channels.

    Args:
        grid: One value for each position.
        image_size: Size of the image that the model received.
        extent: The size in pixels that the grid covers.
        images: The user's input; a wrapper may resize it before the model.
        attribute_to: The requested form.
    """
    if attribute_to == "grid":
        return grid.to(images.dtype)
    pixels = F.interpolate(widen(grid), size=extent, mode="bilinear", align_corners=False)
    height, width = image_size
    pixels = pixels[:, :, :height, :width]
    pixels = F.pad(pixels, (0, width - pixels.shape[3], 0, height - pixels.shape[2]))  # what no patch covers is 0
    if pixels.shape[-2:] != images.shape[-2:]:
        pixels = F.interpolate(pixels, size=images.shape[-2:], mode="bilinear", align_corners=False)
    if attribute_to == "input":
        pixels = (pixels / images.shape[1]).expand(-1, images.shape[1], -1, -1)
    return pixels.to(images.dtype).contiguous()
