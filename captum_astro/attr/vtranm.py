"""VTranM: vector transformations measured through every layer."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from captum_astro.attr._base import TokenAttribution
from captum_astro.attr._contract import Layered, TensorOrTuple, WholeMap, check_names, contract
from captum_astro.capture.call import Call
from captum_astro.capture.carry import Update, carry, carry_last
from captum_astro.capture.records import AttentionRecord, FeedForwardRecord, Pass
from captum_astro.capture.target import Output
from captum_astro.capture.wanted import Wanted
from captum_astro.functional import vtranm
from captum_astro.kinds import FLAG, number

if TYPE_CHECKING:
    from typing_extensions import Unpack

Component = Literal["length", "direction"]


class VTranM(TokenAttribution):
    r"""The relevance of each token from attention and from how its vector is transformed, through every layer.

    The result is a row of the contribution map :math:`C = U_L \dots U_1 C_0` with, for each attention layer and each
    feed-forward layer,

    .. math::

        U = I + \mathrm{gain} \cdot \mathbb{E}_h[(\partial p / \partial A_h)^+ \odot A_h W_h], \qquad U = I + W,

    :math:`W = \mathrm{diag}(\|\tilde E_j\| / \|E_j\| \cdot \mathrm{NECC}(j))`, NECC the softmax over the tokens of
    :math:`\cos(E_j, \tilde E_j)`, and :math:`C_0 = \mathrm{diag}(\|E_{0,j}\|)`. The row is that of the class token, or
    the mean of those that the model averages; with a pooling head it is the head's own map, by the same rule without
    :math:`I`.

    Source: Wu et al., "Token Transformation Matters", CVPR 2024 (arXiv 2403.14552), Eq. 6 to 16, where the method
    is called TokenTM. It was published for models with a class token. ``gain`` and ``include_norm=True`` (exact in a
    model that normalises before each layer) are additions of this package.

    Costs one forward and one backward pass to the tokens; memory grows linearly with their number.

    Args:
        forward_func: A timm Vision Transformer, a wrapper around one, or a model with a registered layout.

    Raises:
        UnsupportedModelError: If the model has no layout, or its layers compute something other than the layout says.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("vit_tiny_patch16_224").eval()
        >>> x = torch.rand(2, 3, 224, 224)
        >>> VTranM(model).attribute(x, target=[281, 7]).shape
        torch.Size([2, 3, 224, 224])
    """

    family = "attention"
    source = "Wu et al., CVPR 2024, arXiv 2403.14552"

    @contract
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
        **common: Unpack[Layered],
    ) -> TensorOrTuple:
        """Explain each image's target.

        Args:
            output: The gradient is that of the target's softmax ``"probability"``, as published, or of its ``"logit"``.
            aggregation: False reads only the last layer's ``E_h[(dp/dA)^+ * A]`` (Eq. 8, the paper's baseline).
            components: The weights of the attention: ``"length"`` (with ``C_0``), ``"direction"`` (NECC), both, or
                none. With none, the feed-forward layers have no update.
            include_norm: Measure the vectors that the model adds, including norms and biases; False uses the paper's
                algebra literally, ``E W_V W_H``.
            gain: Multiplies the second term of attention layers; 1 is as published.
        """
        update = _VTranMUpdate(aggregation, components, include_norm, gain)
        return self._explain(inputs, target, update, common, output)

    @contract
    def contribution_map(
        self,
        inputs: torch.Tensor,
        target: Any = None,
        *,
        output: Output = "probability",
        components: Collection[Component] = ("length", "direction"),
        include_norm: bool = True,
        gain: float = 1.0,
        **common: Unpack[WholeMap],
    ) -> torch.Tensor:
        """The whole map ``C``: row i holds what each input token contributes to final token i.

        Args:
            output: ``"probability"`` or ``"logit"``.
            components: The weights of the attention.
            include_norm: Include norms and biases.
            gain: Multiplies the second term of attention layers.

        Returns:
            ``(B, final tokens, tokens)``, including the prefix tokens. `attribute` reads the rows that the model
            classifies.

        Example:
            >>> import timm, torch
            >>> model = timm.create_model("vit_tiny_patch16_224").eval()
            >>> VTranM(model).contribution_map(torch.rand(1, 3, 224, 224), target=1).shape
            torch.Size([1, 197, 197])
        """
        check_names("VTranM.contribution_map", common, WholeMap)
        update = _VTranMUpdate(True, components, include_norm, gain, full=True)
        return self._explain(inputs, target, update, cast(Layered, {**common, "attribute_to": "tokens"}), output)

    def _row(self, call: Call, wanted: Wanted, passed: Pass, update: Update) -> torch.Tensor:
        assert isinstance(update, _VTranMUpdate)
        if not update.aggregation:
            return carry_last(passed, update)
        return carry(passed, update, update.start(passed))


class _VTranMUpdate(Update):
    """``U = I + gain E_h[(dp/dA)+ * A W]`` for attention, ``U = I + W`` for feed-forward layers."""

    def __init__(
        self, aggregation: bool, components: Collection[str], include_norm: bool, gain: float, full: bool = False
    ) -> None:
        unknown = set(components) - set(vtranm.COMPONENTS)
        if unknown or isinstance(components, str):
            raise ValueError(f"components must be a tuple of {vtranm.COMPONENTS}, not {components!r}.")
        FLAG.check("aggregation", aggregation)
        FLAG.check("include_norm", include_norm)
        number().check("gain", gain)
        self.aggregation, self._include_norm = aggregation, include_norm
        self._components = tuple(components) if aggregation else ()
        self._gain, self._full = gain, full
        self.merges_by_length = "length" in self._components

    def start(self, passed: Pass) -> torch.Tensor | None:
        """For the whole map, each final token's own row; otherwise the row that `carry` starts from."""
        if not self._full:
            return None
        batch, tokens = passed.stages[-1].following.shape[:2]
        return torch.eye(tokens, dtype=passed.readout.dtype, device=passed.readout.device).expand(batch, -1, -1)

    def attention(self, row: torch.Tensor, record: AttentionRecord) -> torch.Tensor:
        value, output_map, query_scale = record.transformed(self._include_norm)
        weights = self._weights(record, value, output_map, record.gates(self._include_norm))
        update = vtranm.attention_update(row, record.attention, record.gradient, weights, query_scale)
        return update if record.block < 0 else self._gain * update

    def _weights(
        self, record: AttentionRecord, value: torch.Tensor, output_map: torch.Tensor, gate: torch.Tensor | None
    ) -> torch.Tensor | Callable[[slice], torch.Tensor]:
        """``W_h`` of each key; with a gate, which differs from query to query, a function that computes some rows."""
        stream, present, components = record.stream, record.present, self._components
        if gate is None:
            return vtranm.head_weights(stream, value, output_map, components, present)
        return lambda rows: vtranm.gated_weights(stream, value, output_map, gate[:, :, rows], components, present)

    def feed_forward(self, row: torch.Tensor, record: FeedForwardRecord) -> torch.Tensor | None:
        if not self._components:
            return None
        weights = vtranm.feed_forward_weights(record.stream, record.output, self._components)
        return row * (weights if row.ndim == 2 else weights[:, None])

    def finish(self, row: torch.Tensor, stream: torch.Tensor) -> torch.Tensor:
        lengths = vtranm.initial_lengths(stream, self._components)
        return row * (lengths if row.ndim == 2 else lengths[:, None])
