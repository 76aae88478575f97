"""What a metric of the benchmark is: one declaration, which the engine, the tables and the report read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from numpy.typing import NDArray

Need = Literal[
    "labels", "masks", "human_maps", "classes", "logits", "positive_logits", "negative_logits", "pixels", "probability"
]
OF_THE_DATA: dict[Need, str] = {"labels": "label", "masks": "mask", "human_maps": "human map"}
RANDOM_MAPS: Literal["random maps"] = "random maps"
Probability = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Given:
    """What a metric is computed from: M maps and what is known of their images, all but the pixels on the CPU.

    Beside ``maps`` it holds what the metric names in its ``needs``, and nothing else.

    Attributes:
        maps: ``(M, H, W)`` float32; a metric of the model gets none.
        classes: ``(M,)``, the class that each map explains.
        labels: ``(M,)``, the true classes.
        masks: ``(M, H, W)`` int8: 1 the object, 0 the background, -1 unknown.
        human_maps: ``(M, H, W)``, blurred as in the Harmonization benchmark.
        logits: ``(M, classes)``, of the untouched images.
        positive_logits: ``(M, L, classes)``, while pixels are removed, most important first.
        negative_logits: ``(M, L, classes)``, least important first.
        pixels: ``(M, 3, H, W)`` in [0, 1], on the model's device.
        probability: Takes N changed images ``(N, 3, H, W)`` and the place ``(N,)`` among the M that each was made from,
            and gives the probability ``(N,)`` of that place's class.
    """

    maps: torch.Tensor
    classes: torch.Tensor
    labels: torch.Tensor
    masks: torch.Tensor
    human_maps: torch.Tensor
    logits: torch.Tensor
    positive_logits: torch.Tensor
    negative_logits: torch.Tensor
    pixels: torch.Tensor
    probability: Probability

    def __init__(self, **known: Any) -> None:
        vars(self).update(known)
        self._shared: dict[Callable[[Given], Any], Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name in get_args(Need):
            raise AttributeError(f"the metric reads {name}, which it does not name in its needs")
        raise AttributeError(name)

    def shared(self, function: Callable[[Given], Any]) -> Any:
        """What a function gives for this, computed once for all metrics that ask for it.

        Args:
            function: A function with a name, not one that is made anew in each call.

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
    """Scores with what each was drawn from.

    Attributes:
        values: ``(M,)``.
        curves: ``(M, L)``, kept in the rows.
    """

    values: torch.Tensor
    curves: torch.Tensor


@dataclass(frozen=True)
class Pooling:
    """A value for a set of samples, from counts that are summed over them; a sample's counts are its curve.

    Attributes:
        value: From sums ``(..., parts)`` to ``(...)``; NaN where nothing was counted.
        parts: How many counts a sample has.
        weight: The place of the count that says how much a sample weighs; without any weight it does not count.
    """

    value: Callable[[NDArray[Any]], NDArray[Any]]
    parts: int
    weight: int


@dataclass(frozen=True)
class ChanceFrom:
    """A chance level that follows from another metric's values of the same samples.

    Attributes:
        metric: Its name, as ``object share``.
        level: From the mean of its values, weighted as the metric is pooled, to the chance level.
    """

    metric: str
    level: Callable[[NDArray[Any]], NDArray[Any]] = lambda mean: mean


@dataclass(frozen=True)
class CurvePlot:
    """How the report draws a metric's curve.

    Attributes:
        title: Of the panel; ``{explained}`` is ``predicted`` or ``true``.
        axis: What goes up, with its unit.
        whole: Whether the axis always ends at 100 %.
    """

    title: str
    axis: str
    whole: bool = False


@dataclass(frozen=True)
class Metric:
    """A metric of the benchmark.

    Attributes:
        name: In the rows and on the command line.
        compute: From what is given to ``(M,)`` values, or to `Scores`; NaN where a value is not defined.
        needs: What ``compute`` reads besides the maps, by `Given`'s names. With ``classes`` it is computed for each
            class explained. Samples that lack labels, masks or human maps are left out.
        direction: 1 where higher is better, -1 where lower is.
        kind: A word for all of its kind on the command line.
        heading: Of its table in the report; by default the kind.
        percent: Printed as a percentage with one digit; otherwise with three.
        plot: How its curve is drawn, where it has one that is worth it.
        chance: What a map without information has: one number for all data, what follows from another metric, or
            ``RANDOM_MAPS``, what the method Random reached. None if it is not known.
        pooling: The value of a set, where it is not the mean of the samples' values.
        of_model: It belongs to the model or the data and not to a map.
        predicted_only: It is defined for the predicted class alone.

    Raises:
        ValueError: If a value is none of these.
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
    of_model: bool = False
    predicted_only: bool = False

    def __post_init__(self) -> None:
        unknown = [need for need in self.needs if need not in get_args(Need)]
        if unknown:
            raise ValueError(f"{self.name}: needs are {', '.join(get_args(Need))}, not {unknown[0]!r}.")
        if self.direction not in (1, -1):
            raise ValueError(f"{self.name}: direction is 1 (higher is better) or -1, not {self.direction!r}.")
        if not self.name.strip() or set(self.name) & {",", ":"}:
            raise ValueError(f"A metric's name has a letter, and neither comma nor colon: {self.name!r}.")

    @property
    def title(self) -> str:
        """The heading of its table."""
        return self.heading or self.kind.capitalize()

    def scores(self, given: Given, count: int) -> Scores:
        """Compute it, with curves of no length where it has none.

        Args:
            given: What it needs.
            count: How many values are to come.

        Raises:
            ValueError: If others come.
        """
        found = self.compute(given)
        found = found if isinstance(found, Scores) else Scores(found, found.new_zeros(len(found), 0))
        if found.values.shape != (count,) or len(found.curves) != count:
            raise ValueError(f"{self.name} gave values of shape {tuple(found.values.shape)} for {count} maps")
        return found
