"""Base of the methods that propagate relevance to the pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from captum_astro.attr._base import Explanation, warn_of_features
from captum_astro.attr._batch import Batch
from captum_astro.attr._contract import AttributeTo, Common, TensorOrTuple, check_names, contract
from captum_astro.capture.call import Call
from captum_astro.capture.conservation import Conservation, conservation
from captum_astro.capture.entry import check_unmoved
from captum_astro.capture.features import lacks_classes
from captum_astro.capture.input_relevance import Arrived, propagate
from captum_astro.capture.positions import Positions
from captum_astro.capture.rules_mode import Rules
from captum_astro.capture.target import Output, Target
from captum_astro.functional.positions import spread_evenly
from captum_astro.kinds import FLAG
from captum_astro.layouts.base import Layout, layout_for
from captum_astro.layouts.errors import UnsupportedModelError

if TYPE_CHECKING:
    from typing_extensions import Unpack


class PropagationAttribution(Explanation):
    """Signed relevance of every pixel and channel, or of every token.

    Args:
        forward_func: Any model of images, such as timm's, if every operation has a rule; or a model of texts that has a
            layout.
    """

    _times_input = False  # whether the backward pass carries gradients, not relevance

    def _mode(self, call: Call) -> Rules:
        """The rules of the method."""
        raise NotImplementedError

    def conservation(self, inputs: torch.Tensor, target: Any = None) -> Conservation:
        """Which parts of the explained output arrive at the pixels and at the model's constants.

        Args:
            inputs: One image ``(1, C, H, W)``.
            target: The explained class, in any form that Captum accepts.

        Returns:
            The parts, which sum to 1 with the rest that the rules pass on to neither.

        Raises:
            UnsupportedModelError: If an operation has no rule, or the output does not depend on the image.
            ValueError: If there are several images, or the output is zero.

        Example:
            >>> import timm, torch
            >>> from captum_astro import AttnLRP
            >>> model = timm.create_model("test_efficientnet").eval()
            >>> parts = AttnLRP(model).conservation(torch.rand(1, 3, 64, 64), target=1)
            >>> round(parts.pixels + parts.constants, 3)
            1.0
        """
        with self._private(self.forward_func, None if self._times_input else torch.float64) as replica:
            layout = _layout(replica.model, "pixels")
            (part,) = Batch(replica, layout, inputs, Target(target), {}).parts()
            return conservation(part.call, self._mode, self._times_input)

    def _relevance(
        self,
        inputs: TensorOrTuple,
        target: Any,
        common: Common,
        output: Output,
        least: torch.dtype | None = None,
        mode: Callable[[Call], Rules] | None = None,
    ) -> TensorOrTuple:
        """Run the method on a batch, in parts if requested, in at least this precision, by other rules if given."""
        check_names(f"{self.get_name()}.attribute", common, Common)
        with self._private(self.forward_func, least) as replica:
            layout = _layout(replica.model, common.get("attribute_to", "input"))
            batch = Batch(replica, layout, inputs, Target(target, output), common)
            found = []
            for part in batch.parts():
                with batch.trying():
                    found.append((part, self._one(part.call, batch.attribute_to, mode or self._mode)))
            attributions: TensorOrTuple = batch.joined(found)
        return attributions

    def _one(self, call: Call, attribute_to: AttributeTo, mode: Callable[[Call], Rules]) -> torch.Tensor:
        """Run the method on one part."""
        rules = mode(call)
        arrived = propagate(call, rules, self._times_input, rules.constants)
        if isinstance(rules.constants, Positions):
            arrived = _with_positions(call, arrived, rules.constants)
        if call.target.output == "probability" and (why := lacks_classes(call.model)):
            warn_of_features(call.model, why)
        found = _shaped(arrived, call.layout, attribute_to)
        return found if arrived.image is None else found.to(call.inputs.dtype).contiguous()


class InputTimesGradient(PropagationAttribution):
    """Base of the methods whose rules modify the gradient, so that input times gradient is the relevance."""

    _times_input = True

    @contract
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: Any = None,
        *,
        output: Output = "logit",
        positions: bool = False,
        **common: Unpack[Common],
    ) -> TensorOrTuple:
        """Explain each image's target.

        Args:
            output: The target's ``"logit"``, as published, or its softmax ``"probability"``.
            positions: Add the relevance of each patch's position embedding to its pixels, in equal parts (Bakish et
                al., NeurIPS 2025, arXiv 2506.02138). That of patches and tokens contains it in either case. Rotary
                embeddings and relative biases are refused.
            attribute_to: ``"input"`` returns the relevance of every pixel and channel, ``"pixels"`` the sum over the
                channels, ``(B, 1, H, W)``; ``"grid"`` the relevance of the patch tokens, ``(B, 1, rows, columns)``, and
                ``"tokens"`` that of all tokens that enter the first block, ``(B, n)``.

        Returns:
            Signed attributions with the inputs' dtype and device, not normalised; a tuple if the input was a tuple.
        """
        FLAG.check("positions", positions)
        return self._relevance(inputs, target, common, output, mode=self._noting_positions if positions else None)

    def _noting_positions(self, call: Call) -> Rules:
        rules = self._mode(call)
        if call.layout is None:
            raise UnsupportedModelError(
                "positions=True needs a layout, which says where the patches are. Leave it out: the pixels' own "
                "relevance needs none."
            )
        rules.constants = Positions(type(call.explained).__name__)
        return rules


def _layout(model: nn.Module, attribute_to: AttributeTo) -> Layout | None:
    """The model's layout; None if it has none and none is needed, because relevance goes to the pixels."""
    try:
        return layout_for(model)
    except UnsupportedModelError as error:
        if attribute_to not in ("grid", "tokens"):
            return None
        raise UnsupportedModelError(
            f"attribute_to={attribute_to!r} needs a layout, which says what the tokens are; 'input' and 'pixels' work "
            f"without one. {error}"
        ) from error


def _with_positions(call: Call, arrived: Arrived, positions: Positions) -> Arrived:
    """The relevance, with that of the position embeddings on the pixels of their patches."""
    assert call.layout is not None
    if (
        arrived.image is None
        or call.layout.patch_lists is not None
        or arrived.image_size != (*arrived.image.shape[-2:],)
    ):
        raise UnsupportedModelError(
            "positions=True needs images in the size that the model receives. Leave it out: the relevance of patches, "
            "attribute_to='grid', and of tokens contains that of their positions."
        )
    check_unmoved(call, call.layout.model)
    assert arrived.tokens is not None
    tokens = positions.by_token(arrived.constants, arrived.tokens)[:, call.layout.num_prefix_tokens :]
    at_patches = tokens.unflatten(1, call.layout.grid(*arrived.image_size))
    spread = spread_evenly(at_patches, call.layout.extent(*arrived.image_size), arrived.image_size)
    return replace(arrived, image=arrived.image + spread / arrived.image.shape[1])


def _shaped(arrived: Arrived, layout: Layout | None, attribute_to: AttributeTo) -> torch.Tensor:
    if arrived.image is not None and attribute_to in ("input", "pixels"):
        return arrived.image if attribute_to == "input" else arrived.image.sum(1, keepdim=True)
    assert arrived.tokens is not None
    assert layout is not None
    if attribute_to == "tokens" or arrived.image is None:
        return arrived.tokens
    grid = layout.grid(*arrived.image_size)
    return arrived.tokens[:, layout.num_prefix_tokens :].reshape(-1, 1, *grid)
