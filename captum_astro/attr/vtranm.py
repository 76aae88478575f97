"""VTranM: vector transformations measured through every layer."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from captum.log import log_usage

from captum_astro.attr._base import AttributeTo, TensorOrTuple, TokenAttribution, TokenWalker
from captum_astro.attr._target import Output
from captum_astro.capture.records import AttentionRecord, StageRecord
from captum_astro.functional import vtranm
from captum_astro.layouts.base import Layout

Component = Literal["length", "direction"]


class VTranM(TokenAttribution):
    r"""Relevance of each token from attention and from how each vector is transformed, through every layer.

    A row of the contribution map :math:`C = U_L \dots U_1 C_0` is read, with, for each attention layer and each
    feed-forward layer,

    .. math::

        U = I + \mathrm{gain} \cdot \mathbb{E}_h[(\partial p / \partial A_h)^+ \odot A_h W_h], \qquad U = I + W,

    :math:`W = \mathrm{diag}(\|\tilde E_j\| / \|E_j\| \cdot \mathrm{NECC}(j))`, NECC the softmax over the tokens of
    :math:`\cos(E_j, \tilde E_j)`, and :math:`C_0 = \mathrm{diag}(\|E_{0,j}\|)`. The row is the class token's, or
    the mean of those that the model averages; with a pooling head it is the head's own map, by the same rule without
    :math:`I`.

    Source: Wu et al., "Token Transformation Matters", CVPR 2024 (arXiv 2403.14552), Eq. 6 to 16, where the method
    is called TokenTM. It was published for models with a class token. ``gain`` and ``include_norm=True`` (exact in
    a model that normalises before each layer) are of this package.

    Costs one forward and one backward pass to the tokens; memory grows linearly with their number.

    Args:
        forward_func: A timm Vision Transformer, a wrapper of one, or a model with a registered layout.

    Raises:
        UnsupportedModelError: If the model has no layout, or its layers compute something other than it says.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> x = torch.rand(2, 3, 224, 224)
        >>> VTranM(model).attribute(x, target=[281, 7]).shape
        torch.Size([2, 3, 224, 224])
    """

    family = "attention"
    source = "Wu et al., CVPR 2024, arXiv 2403.14552"

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: TensorOrTuple,
        target: Any = None,
        *,
        output: Output = "probability",
        aggregation: bool = True,
        components: Collection[Component] = ("length", "direction"),
        include_norm: bool = True,
        gain: float = 1.0,
        layers: Iterable[int] | None = None,
        additional_forward_args: Any = None,
        internal_batch_size: int | None = None,
        attribute_to: AttributeTo = "input",
    ) -> TensorOrTuple:
        """Explain each image's target.

        Args:
            inputs: Images ``(B, C, H, W)``, or a tuple with that one tensor.
            target: The class to explain, in any form that Captum takes: an int, a list or a tensor of ``B``, ...
            output: The gradient is that of the target's softmax ``"probability"``, as published, or of its ``"logit"``.
            aggregation: False reads the last layer's ``E_h[(dp/dA)^+ * A]`` alone (Eq. 8, the paper's baseline).
            components: What weighs the attention: ``"length"`` (with ``C_0``), ``"direction"`` (NECC), both, or none.
                With none, the feed-forward layers have no map.
            include_norm: Measure the vectors that the model adds, norms and biases included; False takes the paper's
                algebra literally, ``E W_V W_H``.
            gain: Multiplies attention's second term; 1 is the paper.
            layers: The blocks to use, counted from 0 (negative: from the end); the others count as ``I``.
            additional_forward_args: Passed to the model after the images.
            internal_batch_size: Explain so many images at a time.
            attribute_to: ``"input"`` gives the inputs' shape, the pixel map shared equally among the channels;
                ``"pixels"`` gives ``(B, 1, H, W)``, ``"grid"`` ``(B, 1, rows, columns)`` and ``"tokens"`` ``(B, n)``.

        Returns:
            Attributions of the inputs' dtype and device, not normalised; a tuple for a tuple.

        Raises:
            AssertionError: If the target is of no form that Captum takes, or is needed and not given.
            IndexError: If the target is out of range.
            ValueError: If an argument is not one of its values, or the images are empty, not finite or of a wrong
                shape.
            UnsupportedModelError: If what was captured does not rebuild what the model computed.
        """

        def walker(layout: Layout) -> _VTranMWalker:
            return _VTranMWalker(aggregation, components, include_norm, gain, full=False)

        return self._explain(
            inputs,
            target,
            additional_forward_args,
            internal_batch_size,
            attribute_to,
            walker,
            output=output,
            layers=layers,
        )

    def contribution_map(
        self,
        inputs: torch.Tensor,
        target: Any = None,
        *,
        output: Output = "probability",
        components: Collection[Component] = ("length", "direction"),
        include_norm: bool = True,
        gain: float = 1.0,
        layers: Iterable[int] | None = None,
        additional_forward_args: Any = None,
    ) -> torch.Tensor:
        """The whole map ``C``: row i holds what each input token contributes to final token i.

        Args:
            inputs: Images ``(B, C, H, W)``.
            target: As in `attribute`, and so are the other arguments.
            output: ``"probability"`` or ``"logit"``.
            components: What weighs the attention.
            include_norm: Norms and biases included.
            gain: Multiplies attention's second term.
            layers: The blocks to use.
            additional_forward_args: Passed to the model after the images.

        Returns:
            ``(B, n, n)``, with the prefix tokens. `attribute` reads the rows that the model classifies.

        Raises:
            AssertionError: If the target is of no form that Captum takes, or is needed and not given.
            IndexError: If the target is out of range.
            ValueError: If an argument is not one of its values, or the images are empty, not finite or of a wrong
                shape.
            UnsupportedModelError: If what was captured does not rebuild what the model computed.

        Example:
            >>> import timm, torch
            >>> model = timm.create_model("vit_tiny_patch16_224").eval()
            >>> VTranM(model).contribution_map(torch.rand(1, 3, 224, 224), target=1).shape
            torch.Size([1, 197, 197])
        """

        def walker(layout: Layout) -> _VTranMWalker:
            return _VTranMWalker(True, components, include_norm, gain, full=True)

        return self._explain(
            inputs, target, additional_forward_args, None, "tokens", walker, output=output, layers=layers
        )


class _VTranMWalker(TokenWalker):
    """Rows of the contribution map so far, ``(B, m, n)``: one, or all of them."""

    def __init__(
        self, aggregation: bool, components: Collection[str], include_norm: bool, gain: float, full: bool
    ) -> None:
        unknown = set(components) - set(vtranm.COMPONENTS)
        if unknown or isinstance(components, str):
            raise ValueError(f"components are some of {vtranm.COMPONENTS}, in a tuple; {components!r} was given.")
        self._aggregation, self._include_norm = aggregation, include_norm
        self._components = tuple(components) if aggregation else ()
        self._gain, self._full = gain, full
        self._rows = torch.empty(0)
        self._done = False

    def begin(self, readout: torch.Tensor, pooling: AttentionRecord | None) -> None:
        self._rows = readout[:, None]
        if self._full:
            tokens = readout.shape[1] if pooling is None else pooling.first_key + pooling.stream.shape[1]
            self._rows = torch.eye(tokens).to(readout).expand(len(readout), -1, -1)
        elif pooling is not None:
            self._rows = self._attention(pooling)
            self._done = not self._aggregation

    def step(self, record: StageRecord) -> None:
        if self._done:
            return
        update = torch.zeros_like(self._rows)
        for branch in record.branches:
            if isinstance(branch, AttentionRecord):
                update = update + self._gain * self._attention(branch)
            elif self._components:
                weights = vtranm.feed_forward_weights(branch.stream, branch.output, self._components)
                update = update + self._rows * weights[:, None]
        if self._aggregation:
            self._rows = self._rows + update
        elif any(isinstance(branch, AttentionRecord) for branch in record.branches):
            self._rows, self._done = update, True

    def end(self, stream: torch.Tensor) -> None:
        tokens = self._rows * vtranm.initial_lengths(stream, self._components)[:, None]
        self.tokens = tokens if self._full else tokens[:, 0]

    def _attention(self, record: AttentionRecord) -> torch.Tensor:
        assert record.gradient is not None
        value, output_map, query_scale = record.transformed(self._include_norm)
        weights = vtranm.head_weights(record.stream, value, output_map, self._components)
        update = vtranm.attention_update(self._rows, record.attention, record.gradient, weights, query_scale)
        return F.pad(update, (record.first_key, 0))
