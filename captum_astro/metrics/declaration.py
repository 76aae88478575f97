"""The declaration of a benchmark metric, which the engine, the tables and the report read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from numpy.typing import NDArray

from captum_astro.metrics._undefined import constant, reasons, usable

Need = Literal[
    "labels",
    "masks",
    "human_maps",
    "classes",
    "logits",
    "positive_logits",
    "negative_logits",
    "blurred_positive_logits",
    "blurred_negative_logits",
    "pixels",
    "probability",
    "answers",
    "explain",
    "randomised",
    "without_logits",
    "only_logits",
    "most_first_logits",
    "least_first_logits",
]
OF_THE_DATA: dict[Need, str] = {"labels": "label", "masks": "mask", "human_maps": "human map"}
RANDOM_MAPS: Literal["random maps"] = "random maps"
Probability = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Answers = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Explain = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Randomised = Callable[[bool], torch.Tensor]


class Given:
    """The inputs of a metric: M maps and what is known of their images, all on the CPU except the pixels.

    Besides ``maps`` it holds only what the metric lists in its ``needs``.

    Attributes:
        maps: ``(M, H, W)`` float32; empty for a metric of the model.
        classes: ``(M,)``, the class that each map explains.
        labels: ``(M,)``, the true classes.
        masks: ``(M, H, W)`` int8: 1 the object, 0 the background, -1 unknown.
        human_maps: ``(M, H, W)``, blurred as in the Harmonization benchmark.
        logits: ``(M, classes)``, of the unperturbed images.
        positive_logits: ``(M, L, classes)``, as pixels are removed, most important first.
        negative_logits: ``(M, L, classes)``, least important first.
        blurred_positive_logits: As ``positive_logits``, where removed pixels become those of the blurred image.
        blurred_negative_logits: The same, least important first.
        pixels: ``(M, 3, H, W)`` in [0, 1], on the model's device.
        probability: Takes N modified images ``(N, 3, H, W)`` and the indices ``(N,)`` among the M of the image that
            each was made from, and returns the probability ``(N,)`` of the class explained there.
        answers: Takes the same, and returns the logits ``(N, classes)``.
        explain: Takes the same, and returns the maps ``(N, H, W)`` that the method of each gives for its class.
        randomised: Takes whether layers are randomised one after the other, from the output down (else each one alone),
            and returns the maps ``(M, layers, H, W)`` on the randomised models.
        without_logits: ``(M, L, classes)``, of texts: whole, then without shares of their tokens; for this and the next
            three see `captum_astro.metrics.token_deletion.token_removals`.
        only_logits: The same, of these shares alone.
        most_first_logits: The same, as tokens are deleted, most important first.
        least_first_logits: The same, least important first.
    """

    maps: torch.Tensor
    classes: torch.Tensor
    labels: torch.Tensor
    masks: torch.Tensor
    human_maps: torch.Tensor
    logits: torch.Tensor
    positive_logits: torch.Tensor
    negative_logits: torch.Tensor
    blurred_positive_logits: torch.Tensor
    blurred_negative_logits: torch.Tensor
    pixels: torch.Tensor
    probability: Probability
    answers: Answers
    explain: Explain
    randomised: Randomised
    without_logits: torch.Tensor
    only_logits: torch.Tensor
    most_first_logits: torch.Tensor
    least_first_logits: torch.Tensor

    def __init__(self, **known: Any) -> None:
        vars(self).update(known)
        self._shared: dict[Callable[[Given], Any], Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name in get_args(Need):
            raise AttributeError(f"the metric reads {name}, which is not listed in its needs")
        raise AttributeError(name)

    def shared(self, function: Callable[[Given], Any]) -> Any:
        """The result of a function on these inputs, computed once for all metrics that request it.

        Args:
            function: A named function, not one that is created anew in each call.

        Example:
            >>> def counted(given):
            ...     print("once")
            ...     return len(given.maps)
            >>> given = Given(maps=torch.zeros(2, 4, 4))
            >>> given.shared(counted), given.shared(counted)
            once
            (2, 2)
        """
        if function not in self._shared:
            self._shared[function] = function(self)
        return self._shared[function]


class Scores(NamedTuple):
    """Scores with the curves they come from.

    Attributes:
        values: ``(M,)``.
        curves: ``(M, L)``, stored in the rows.
        reasons: For each sample why it has no value, None if it has one.
    """

    values: torch.Tensor
    curves: torch.Tensor
    reasons: Sequence[str | None] = ()


@dataclass(frozen=True)
class Pooling:
    """A value for a set of samples, from counts that are summed over them; a sample's counts are its curve.

    Attributes:
        value: From sums ``(..., parts)`` to ``(...)``; NaN where nothing was counted.
        parts: The number of counts per sample.
        weight: The index of the count that is the weight of a sample; a sample with zero weight is ignored.
    """

    value: Callable[[NDArray[Any]], NDArray[Any]]
    parts: int
    weight: int


@dataclass(frozen=True)
class ChanceFrom:
    """A chance level derived from another metric's values of the same samples.

    Attributes:
        metric: Its name, such as ``object share``.
        level: Maps the mean of its values, weighted as the metric is pooled, to the chance level.
    """

    metric: str
    level: Callable[[NDArray[Any]], NDArray[Any]] = lambda mean: mean


@dataclass(frozen=True)
class CurvePlot:
    """How the report plots a metric's curve.

    Attributes:
        title: Title of the panel; ``{explained}`` is ``predicted`` or ``true``.
        axis: Label of the vertical axis, with its unit.
        across: Label of the horizontal axis, from 0 to 100.
        whole: Whether the axis always ends at 100 %.
    """

    title: str
    axis: str
    across: str = "pixels removed, %"
    whole: bool = False


@dataclass(frozen=True)
class Metric:
    """A metric of the benchmark.

    Attributes:
        name: The name in the rows and on the command line.
        compute: Returns ``(M,)`` values, or `Scores`, from its inputs; NaN where a value is undefined.
        needs: What ``compute`` reads besides the maps, by the names of `Given`. With ``classes`` it is computed for
            each explained class. Samples that lack labels, masks or human maps are skipped.
        direction: 1 if higher is better, -1 if lower is better.
        kind: The name of its kind on the command line.
        heading: The heading of its table in the report; by default the kind.
        percent: Printed as a percentage with one decimal; otherwise as a number with three.
        plot: How its curve is plotted, if at all.
        chance: The score of a map without information: one number for all data, derived from another metric, or
            ``RANDOM_MAPS``, the score of the method Random. None if unknown.
        pooling: The value of a set, if it is not the mean of the samples' values.
        constant: The score of a map that is the same everywhere: NaN undefined, None as ``compute`` returns it.
        of_model: It belongs to the model or the data, not to a map.
        of_text: It scores an order of tokens, so it is none of the benchmark on images.
        predicted_only: It is defined only for the predicted class.
        on_request: It costs many passes of its own, and is computed only where it is named: ``all`` leaves it out.
        ranks: Whether it says which of two maps is better. What only describes maps, or checks methods, has no part in
            ranks and comparisons.
        meaning: What it measures, in a sentence or two for the report.

    Raises:
        ValueError: If a value is invalid.
    """

    name: str
    compute: Callable[[Given], torch.Tensor | Scores]
    needs: tuple[Need, ...] = ()
    direction: Literal[1, -1] = 1
    kind: str = "other"
    heading: str | None = None
    percent: bool = False
    plot: CurvePlot | None = None
    chance: float | ChanceFrom | Literal["random maps"] | None = None
    pooling: Pooling | None = None
    constant: float | None = None
    of_model: bool = False
    of_text: bool = False
    predicted_only: bool = False
    on_request: bool = False
    ranks: bool = True
    meaning: str = ""

    def __post_init__(self) -> None:
        unknown = [need for need in self.needs if need not in get_args(Need)]
        if unknown:
            raise ValueError(f"{self.name}: needs must be among {', '.join(get_args(Need))}, not {unknown[0]!r}.")
        if self.direction not in (1, -1):
            raise ValueError(f"{self.name}: direction must be 1 (higher is better) or -1, not {self.direction!r}.")
        if not self.name.strip() or set(self.name) & {",", ":"}:
            raise ValueError(f"A metric's name must have a letter, and neither comma nor colon: {self.name!r}.")

    @property
    def title(self) -> str:
        """The heading of its table."""
        return self.heading or self.kind.capitalize()

    def scores(self, given: Given, count: int) -> Scores:
        """Compute it, with empty curves if it has none; NaN, with the reason, for inputs that decide nothing.

        Args:
            given: Its inputs.
            count: The expected number of values.

        Raises:
            ValueError: If the number of values is different.
        """
        why = reasons(self, given, count)
        given = given.shared(usable)
        found = self.compute(given)
        found = found if isinstance(found, Scores) else Scores(found, found.new_zeros(len(found), 0))
        if found.values.shape != (count,) or len(found.curves) != count:
            raise ValueError(f"{self.name} returned values of shape {tuple(found.values.shape)} for {count} maps")
        values = found.values
        if self.constant is not None:
            values = torch.where(constant(given.maps).to(values.device), self.constant, values)
        undefined = torch.tensor([reason is not None for reason in why], dtype=torch.bool, device=values.device)
        if undefined.any():
            values = values.double().masked_fill(undefined, torch.nan)
        return Scores(values, found.curves, why)
