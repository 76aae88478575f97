"""What orders the tokens of a text: every method that is defined for its model, and what they are compared with."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from captum.attr import LayerIntegratedGradients
from torch import nn

from captum_astro.attr.explainers import Explainer, explainers
from captum_astro.evaluation.specification.methods import INTEGRATED, RANDOM
from captum_astro.evaluation.words.answers import answers
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.metrics.perturbation import class_probability
from captum_astro.metrics.token_deletion import shortened

LEAVE_ONE_OUT = "LeaveOneOut"
_STEPS, _PATH_POINTS = 32, 64  # of IntegratedGradients, as in the benchmark on images


class Texts(NamedTuple):
    """Some reviews as a model reads them.

    Attributes:
        ids: ``(B, n)``, padding 0 at the end.
        lengths: ``(B,)``.
        classes: ``(B,)``, the class to explain.
        numbers: Their indices in the test set.
    """

    ids: torch.Tensor
    lengths: torch.Tensor
    classes: torch.Tensor
    numbers: list[int]


Orders = Callable[[Texts], torch.Tensor]
"""The attributions of some texts, ``(draws, B, n)``: the higher, the more important."""


def orders_for(model: nn.Module, batch_size: int, draws: int, seed: int) -> tuple[dict[str, Orders], dict[str, str]]:
    """The orders of a model's tokens by name, and why the other methods have none.

    Besides the methods of this package there are ``IntegratedGradients``, Captum's, of the embeddings from zero;
    ``LeaveOneOut``, the drop of the class's probability as one token is deleted; and ``Random``.

    Args:
        model: A text classifier in eval mode.
        batch_size: Texts at a time.
        draws: Random orders of each text.
        seed: Random seed of these.
    """
    found: dict[str, Orders] = {}
    refused: dict[str, str] = {}
    one = torch.ones(1, 1, dtype=torch.long, device=next(model.parameters()).device)
    shortest = Texts(one, one[0], 0 * one[0], [0])
    for explainer in explainers():
        orders = _of_method(explainer, model, batch_size)
        if why := _refusal(orders, shortest):
            refused[explainer.name] = why
        else:
            found[explainer.name] = orders
    found[INTEGRATED] = lambda texts: _integrated(model, texts)
    found[LEAVE_ONE_OUT] = lambda texts: leave_one_out(model, texts, batch_size)[None]
    found[RANDOM] = lambda texts: _random(texts, draws, seed)
    return found, refused


def leave_one_out(model: nn.Module, texts: Texts, batch_size: int) -> torch.Tensor:
    """The drop of the class's probability as each token is deleted: float64, ``(B, n)``, 0 for padding."""
    padding = texts.ids == 0
    n = texts.ids.shape[1]
    removed = torch.cat([torch.zeros(1, n, dtype=torch.bool), torch.eye(n, dtype=torch.bool)]).to(texts.ids.device)
    found = class_probability(
        answers(model, shortened(texts.ids, removed | padding[:, None]), batch_size), texts.classes
    )
    return (found[:, :1] - found[:, 1:]).masked_fill(padding, 0)


def _of_method(explainer: Explainer, model: nn.Module, batch_size: int) -> Orders:
    def orders(texts: Texts) -> torch.Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*gives a map that is zero everywhere")  # it is scored as well
            method = explainer.method(model)
            found: torch.Tensor = method.attribute(texts.ids, target=texts.classes, internal_batch_size=batch_size)
        return found.detach()[None]

    return orders


def _refusal(orders: Orders, shortest: Texts) -> str:
    """Why a method is not defined for the model; empty if it is."""
    try:
        orders(shortest)
    except UnsupportedModelError as error:
        return str(error)
    return ""


def _integrated(model: nn.Module, texts: Texts) -> torch.Tensor:
    found: torch.Tensor = LayerIntegratedGradients(model, model.embed).attribute(
        texts.ids,
        baselines=torch.zeros_like(texts.ids),
        target=texts.classes,
        n_steps=_STEPS,
        internal_batch_size=max(_PATH_POINTS, len(texts.ids)),
    )
    return found.detach().sum(-1)[None]


def _random(texts: Texts, draws: int, seed: int) -> torch.Tensor:
    """Of every text its own orders, whatever else is in the batch."""
    found = torch.zeros(draws, *texts.ids.shape)
    for i, (number, length) in enumerate(zip(texts.numbers, texts.lengths.tolist(), strict=True)):
        digest = hashlib.sha256(repr((seed, RANDOM, number)).encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
        found[:, i, :length] = torch.rand(draws, length, generator=generator)
    return found.to(texts.ids.device)
