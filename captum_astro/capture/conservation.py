"""How much of the explained output arrives at the pixels, and where the rest goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from captum_astro.capture.call import Call
from captum_astro.capture.constants import Constants
from captum_astro.capture.input_relevance import propagate
from captum_astro.capture.rules_mode import Rules


@dataclass(frozen=True)
class Conservation:
    """The relevance of one image as parts of the explained output, which sum to 1.

    Attributes:
        output: The explained output; for LRP 1, with which it starts.
        pixels: The part that arrives at the pixels.
        constants: The part of biases, position embeddings, class tokens and the means of batch norms.
    """

    output: float
    pixels: float
    constants: float

    @property
    def rest(self) -> float:
        """What neither gets.

        It is left to the linearisation of a softmax (AttnLRP), to the slope of an activation (Conservative LRP), or to
        neurons to which nothing contributes (LRP).
        """
        return 1 - self.pixels - self.constants


def conservation(call: Call, mode: Callable[[Call], Rules], times_input: bool) -> Conservation:
    """Measure the conservation of a method for one image.

    Args:
        call: A private model, one image and its target.
        mode: The rules of the method.
        times_input: Whether its backward pass carries gradients, not relevance.

    Raises:
        UnsupportedModelError: If an operation has no rule, or the output does not depend on the image.
        ValueError: If there are several images, or the output is zero, so that nothing has a part of it.
    """
    if len(call.inputs) != 1:
        raise ValueError(f"Conservation is measured for one image, not {len(call.inputs)}: pass inputs[:1].")
    rules, constants = mode(call), Constants()
    rules.constants = constants
    arrived = propagate(call, rules, times_input, constants)
    assert arrived.image is not None
    output = arrived.score if times_input else 1.0
    if output == 0:
        raise ValueError("The explained output is zero, so no part of it can be measured: choose another target.")
    added = sum(x.sum().item() for x in arrived.constants)
    return Conservation(output, arrived.image.sum().item() / output, added / output)
