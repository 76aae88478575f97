"""Explanations for Quantus: a method as the ``explain_func`` that all its metrics accept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from captum_astro.attr._base import Explanation

_OF_QUANTUS = ("device", "method")  # added to explain_func_kwargs by Quantus itself


def quantus_explain(
    method: Callable[..., Any], constructor: Mapping[str, Any] | None = None, **kwargs: Any
) -> QuantusExplain:
    """Turn a method into an ``explain_func``.

    The method is rebuilt from the model that Quantus passes. This matters because `quantus.MPRT` and others pass
    randomised copies: an explainer that was built before would keep explaining the original, and every such score would
    be perfect.

    Args:
        method: A class of this package or of Captum, or a function, that takes the model and returns an object with
            ``attribute(inputs, target=...)``, such as ``lambda model: NoiseTunnel(Saliency(model))``.
        constructor: Arguments of the class besides the model. Name layers by their path, not as modules, because a copy
            has different modules.
        **kwargs: Arguments of ``attribute`` besides inputs and target, such as ``output="logit"``.

    Returns:
        The function; it can be pickled if ``method`` can.

    Raises:
        TypeError: If ``method`` is not callable, for example because it is an object that was already built.
        ValueError: If ``target`` is among the arguments, because Quantus provides it.

    Example:
        >>> import quantus, timm
        >>> from captum_astro import VTranM
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, num_classes=5).eval()
        >>> x, y = np.random.default_rng(0).random((2, 3, 32, 32), dtype=np.float32), np.array([1, 4])
        >>> explain = quantus_explain(VTranM, output="logit")
        >>> explain
        quantus_explain(VTranM, output='logit')
        >>> explain(model, x, y).shape
        (2, 1, 32, 32)
        >>> scores = quantus.Sparseness(disable_warnings=True)(model, x, y, explain_func=explain)
        >>> len(scores)
        2
    """
    if not callable(method):
        raise TypeError(
            f"method: a class or a function of the model is needed, not {type(method).__name__}; pass VTranM, not "
            "VTranM(model), because Quantus passes its own models."
        )
    if "target" in kwargs:
        raise ValueError("target: Quantus provides the classes, its y_batch; leave it out.")
    return QuantusExplain(method, dict(constructor or {}), kwargs)


@dataclass(frozen=True, repr=False)
class QuantusExplain:
    """The result of `quantus_explain`: a callable that Quantus accepts as ``explain_func``.

    Attributes:
        method: Takes the model, returns the explainer.
        constructor: Its other arguments.
        kwargs: Arguments of ``attribute`` besides inputs and target.
    """

    method: Callable[..., Any]
    constructor: dict[str, Any] = field(default_factory=dict)
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __call__(
        self, model: nn.Module, inputs: ArrayLike | torch.Tensor, targets: ArrayLike | torch.Tensor, **kwargs: Any
    ) -> NDArray[np.float32]:
        """Explain a batch with exactly this model.

        Methods of this package are called with ``attribute_to="pixels"``; the channels of any other are summed. Quantus
        rejects batches whose maps are all zero, all negative or constant, but ranks NaN, which is therefore rejected
        here. A negative batch (rare: a signed method on one image) passes together with others, with a larger
        ``batch_size``, or as ``a_batch`` with each map's minimum subtracted, which does not affect rank-based metrics.

        Args:
            model: The model, in eval mode.
            inputs: Images ``(B, C, H, W)``; moved to the model's device and dtype.
            targets: The classes, ``(B,)``.
            **kwargs: Passed to ``attribute``, overriding those given before, except Quantus' own ``device`` and
                ``method``.

        Returns:
            ``(B, 1, H, W)`` float32.

        Raises:
            ValueError: If a map does not have the size of the images, or has NaN or infinite values.
        """
        like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
        x = torch.as_tensor(inputs).to(like.device, like.dtype)
        target = torch.as_tensor(targets).to(like.device, torch.long).reshape(-1)
        explainer = self.method(model, **self.constructor)
        pixels = {"attribute_to": "pixels"} if isinstance(explainer, Explanation) else {}
        given = {name: value for name, value in kwargs.items() if name not in _OF_QUANTUS}
        with torch.enable_grad():
            found = explainer.attribute(x, target=target, **(pixels | self.kwargs | given))
        maps = (found[0] if isinstance(found, tuple) else found).detach().double()
        if maps.ndim != 4 or maps.shape[2:] != x.shape[2:] or len(maps) != len(x):
            raise ValueError(
                f"{self!r} returns {tuple(maps.shape)} for images {tuple(x.shape)}; pass a function whose "
                "object enlarges its map to the images."
            )
        maps = maps.sum(1, keepdim=True)
        bad = (~maps.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
        if bad:
            raise ValueError(
                f"{self!r} returns NaN or infinite values for images {bad[:10]} of the batch, which Quantus would "
                "rank; leave these images out."
            )
        return np.asarray(maps.float().cpu().numpy())

    def __repr__(self) -> str:
        named = {"constructor": self.constructor} if self.constructor else {}
        words = [_name(self.method), *(f"{name}={value!r}" for name, value in (named | self.kwargs).items())]
        return f"quantus_explain({', '.join(words)})"


def _name(method: Callable[..., Any]) -> str:
    return getattr(method, "__name__", None) or repr(method)
