"""The report of all methods on one model: what each gives, what it costs, and what to use instead of the refused."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from captum_astro.attr.explainers import explainers, explainers_named
from captum_astro.support.cost import seconds_of_method, seconds_of_model
from captum_astro.support.outcome import Outcome, largest, outcomes

_WIDTH = 80  # characters of a line


@dataclass(frozen=True)
class MethodsReport:
    """What methods give on one model; prints as a table.

    Attributes:
        model: The class of the model.
        image: Shape of the images, ``(B, C, H, W)``.
        seconds: Of a forward and a backward pass, to which the costs are relative.
        outcomes: One for each method.
    """

    model: str
    image: tuple[int, ...]
    seconds: float
    outcomes: tuple[Outcome, ...]

    @property
    def ok(self) -> bool:
        """Whether a method works, and none failed."""
        statuses = {one.status for one in self.outcomes}
        return "failed" not in statuses and bool(statuses & {"exact", "approximate"})

    def instead(self, method: str) -> list[str]:
        """What to use instead of a method: the exact methods of its family, otherwise approximate ones, then others.

        Args:
            method: The name of a method that is refused, failed, or only approximate.
        """
        family = {one.name: one.family for one in explainers()}
        ranked = [
            [
                one.method
                for one in self.outcomes
                if one.status == status and (family[one.method] == family[method]) == same
            ]
            for same in (True, False)
            for status in ("exact", "approximate")
        ]
        return next((names for names in ranked if names), [])

    def __str__(self) -> str:
        width = max(len(one.method) for one in self.outcomes)
        lines = [
            f"{self.model}: methods on {' x '.join(map(str, self.image))}; cost 1 = a forward and a backward pass, "
            f"{self.seconds:.2g} s",
            f"  {'method':<{width}}  {'status':<11}  {'cost':>6}  at the pixels",
        ]
        for one in self.outcomes:
            cost = "" if one.cost is None else f"{one.cost:.1f}"
            kept = "" if one.conserved is None else f"{one.conserved:.3f} of the output"
            lines.append(f"  {one.method:<{width}}  {one.status:<11}  {cost:>6}  {kept}".rstrip())
        reasons: dict[tuple[str, str], list[str]] = {}
        for one in self.outcomes:
            if one.reason:
                reasons.setdefault((one.status, one.reason), []).append(one.method)
        for (status, why), methods in reasons.items():
            lines += ["", *_wrapped(f"{', '.join(methods)}: {status}. {why}")]
            if status != "approximate":
                instead = [name for method in methods for name in self.instead(method)]
                lines += _wrapped(f"Use instead: {', '.join(dict.fromkeys(instead)) or 'another model'}.")
        return "\n".join([*_wrapped(lines[0]), *lines[1:]])


def check_methods(model: nn.Module, inputs: torch.Tensor, methods: Sequence[str] = ("all",)) -> MethodsReport:
    """Run methods on a model: which are exact, approximate or refused, what they conserve, what they cost.

    Each is run on the largest output of each image, and again to be timed.

    Args:
        model: A model, with or without a layout.
        inputs: Images ``(B, C, H, W)`` that it accepts.
        methods: Names of methods, or ``all``.

    Returns:
        A report, with ``ok`` and one entry for each method.

    Raises:
        ValueError: If there is no such method.

    Example:
        >>> import timm, torch
        >>> model = timm.create_model("resnet10t").eval()
        >>> report = check_methods(model, torch.rand(1, 3, 64, 64), ["VTranM", "TokenGradCAM"])
        >>> [one.status for one in report.outcomes], report.instead("VTranM")
        (['refused', 'exact'], ['TokenGradCAM'])
    """
    chosen = explainers_named(methods)
    with torch.no_grad():
        target = largest(model(inputs))
    seconds = seconds_of_model(model, inputs)
    found = [
        one
        if one.status in ("refused", "failed")
        else replace(one, cost=seconds_of_method(chosen[one.method].method, model, inputs, target) / seconds)
        for one in outcomes(model, inputs, chosen.values())
    ]
    return MethodsReport(type(model).__name__, tuple(inputs.shape), seconds, tuple(found))


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, subsequent_indent="  ", break_on_hyphens=False)
