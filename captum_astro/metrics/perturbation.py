"""The model's output as pixels are removed in the order of a map: the scores of the curves.

A map's *negative* curve removes its least important pixels first, its *positive* curve the most important first, from
0 % to 100 % in equal steps. Which pixels these are is in `captum_astro.metrics.removal`; the model is run
by `captum_astro.metrics.perturber`.

Sources: VTranM's perturbation tests and Eq. 21, 22 (AOPC, LOdds), which follow Chefer et al., CVPR 2021; Samek et al.,
IEEE TNNLS 28(11), 2017, for AOPC; Shrikumar et al., ICML 2017, for log-odds.
"""

from __future__ import annotations

import torch

from captum_astro.metrics.declaration import RANDOM_MAPS, CurvePlot, Given, Metric, Scores
from captum_astro.metrics.registry import register


def top_choice_is(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Whether the model's top prediction is the label: the accuracy on one image.

    Args:
        logits: ``(B, L, C)``, one row per level.
        labels: ``(B,)`` classes. The true ones, whichever class the maps explain.

    Returns:
        ``(B, L)`` float64, 1 or 0. For equal logits the first one counts.

    Raises:
        ValueError: If the shapes do not match, or a label is not a class of the model.

    Example:
        >>> top_choice_is(torch.tensor([[[0.1, 0.9], [0.8, 0.2]]]), torch.tensor([1]))
        tensor([[1., 0.]], dtype=torch.float64)
    """
    return (logits.argmax(-1) == _classes(logits, labels)[:, None]).double()


def class_probability(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """The probability of one class, with the softmax in float64 so that it stays above 0.

    Args:
        logits: ``(B, L, C)``, one row per level.
        classes: ``(B,)``, the class explained.

    Returns:
        ``(B, L)`` float64.

    Raises:
        ValueError: If the shapes do not match, or a class is not one of the model's.

    Example:
        >>> class_probability(torch.tensor([[[0.0, 0.0], [200.0, 0.0]]]), torch.tensor([1]))
        tensor([[5.0000e-01, 1.3839e-87]], dtype=torch.float64)
    """
    wanted = _classes(logits, classes)[:, None, None].expand(*logits.shape[:2], 1)
    return logits.double().log_softmax(-1).gather(-1, wanted)[..., 0].exp()


def area_under_curve(curve: torch.Tensor) -> torch.Tensor:
    """Area under the curve by the trapezoidal rule, over the fraction of removed pixels from 0 to 1, ends included.

    Args:
        curve: ``(B, L)``, at equidistant levels, the unperturbed image first; at least 2.

    Returns:
        ``(B,)`` float64, ``numpy.trapezoid(curve, numpy.linspace(0, 1, L))``.

    Raises:
        ValueError: If it is not a batch of curves.

    Example:
        >>> area_under_curve(torch.tensor([[1.0, 1.0, 0.0]]))
        tensor([0.7500], dtype=torch.float64)
    """
    curve = _curves("curve", curve)
    return torch.trapezoid(curve, dx=1 / (curve.shape[1] - 1))


def aopc(probability: torch.Tensor) -> torch.Tensor:
    """Area over the perturbation curve (Eq. 21): the drop of the probability, averaged over the removal levels.

    The mean is over the levels at which something is removed, 5 % to 100 %. The unperturbed image's own level would add
    a zero: with it, as Samek et al. write the mean, the value is ``(L - 1) / L`` of this one.

    Args:
        probability: ``(B, L)`` of the explained class, the unperturbed image first; of the positive curve.

    Returns:
        ``(B,)`` float64, from -1 to 1, higher is better.

    Raises:
        ValueError: If it is not a batch of curves.

    Example:
        >>> aopc(torch.tensor([[0.9, 0.5, 0.1]]))
        tensor([0.6000], dtype=torch.float64)
    """
    probability = _curves("probability", probability)
    return (probability[:, :1] - probability[:, 1:]).mean(1)


def log_odds(probability: torch.Tensor) -> torch.Tensor:
    """LOdds (Eq. 22): the mean of ``log(p(y|x_k) / p(y|x))`` over the removal levels, as in `aopc`.

    Args:
        probability: ``(B, L)`` of the explained class, the unperturbed image first; of the positive curve.

    Returns:
        ``(B,)`` float64, natural logarithm, lower is better.

    Raises:
        ValueError: If it is not a batch of curves, or a probability is not above 0.

    Example:
        >>> log_odds(torch.tensor([[1.0, 0.1, 0.001]], dtype=torch.float64))
        tensor([-4.6052], dtype=torch.float64)
    """
    probability = _curves("probability", probability)
    if (probability <= 0).any():
        raise ValueError(
            "probability: values above 0 are needed; take them from class_probability, whose float64 does not round "
            "them to 0."
        )
    logarithm = probability.log()
    return (logarithm[:, 1:] - logarithm[:, :1]).mean(1)


def _classes(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    if logits.ndim != 3 or classes.shape != logits.shape[:1]:
        raise ValueError(
            f"logits (B, L, C) and classes (B,) are needed, not {(*logits.shape,)} and {(*classes.shape,)}."
        )
    if ((classes < 0) | (classes >= logits.shape[2])).any():
        raise ValueError(f"classes: from 0 to {logits.shape[2] - 1} for this model, not {classes.tolist()}.")
    return classes.to(logits.device, torch.int64)


def _curves(name: str, values: torch.Tensor) -> torch.Tensor:
    if values.ndim != 2 or values.shape[1] < 2:
        raise ValueError(f"{name}: (B, L) with 2 levels at least is needed, not {tuple(values.shape)}.")
    return values.double()


def _positive_auc(given: Given) -> Scores:
    return _auc(given.positive_logits, given.labels)


def _negative_auc(given: Given) -> Scores:
    return _auc(given.negative_logits, given.labels)


def _auc(logits: torch.Tensor, labels: torch.Tensor) -> Scores:
    right = top_choice_is(logits, labels).double()
    return Scores(area_under_curve(right), right)


def _probability(given: Given) -> torch.Tensor:
    return class_probability(given.positive_logits, given.classes)


def _aopc(given: Given) -> Scores:
    probability = given.shared(_probability)
    return Scores(aopc(probability), probability)


def _log_odds(given: Given) -> torch.Tensor:
    return log_odds(given.shared(_probability))


register(
    Metric(
        "positive AUC",
        _positive_auc,
        needs=("labels", "positive_logits"),
        direction=-1,
        kind="perturbation",
        percent=True,
        plot=CurvePlot("Most important pixels first; maps of the {explained} class", "top-1 accuracy, %", whole=True),
        chance=RANDOM_MAPS,
        constant=torch.nan,
        meaning="Area under the model's accuracy as pixels are blackened, the most important first: small if the map "
        "finds what the model relies on.",
    )
)
register(
    Metric(
        "negative AUC",
        _negative_auc,
        needs=("labels", "negative_logits"),
        kind="perturbation",
        percent=True,
        plot=CurvePlot("Least important pixels first; maps of the {explained} class", "top-1 accuracy, %", whole=True),
        chance=RANDOM_MAPS,
        constant=torch.nan,
        meaning="Area under the model's accuracy as pixels are blackened, the least important first: large if the map "
        "finds what the model can do without.",
    )
)
register(
    Metric(
        "AOPC",
        _aopc,
        needs=("classes", "positive_logits"),
        kind="perturbation",
        plot=CurvePlot("Most important pixels first; probability of the {explained} class", "probability, %"),
        chance=RANDOM_MAPS,
        constant=torch.nan,
        meaning="Mean drop of the explained class's probability as pixels are blackened, the most important first.",
    )
)
register(
    Metric(
        "LOdds",
        _log_odds,
        needs=("classes", "positive_logits"),
        direction=-1,
        kind="perturbation",
        chance=RANDOM_MAPS,
        constant=torch.nan,
        meaning="Mean log ratio of the explained class's probability to that for the whole image, as pixels are "
        "blackened, the most important first.",
    )
)
