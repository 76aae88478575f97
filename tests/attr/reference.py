"""What a method returns, next to what it is compared with: loops over what plain hooks recorded."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import torch

from captum_astro.layouts.base import layout_for
from tests import twin_rules, twins
from tests.families import EFFECTIVE, FAMILIES, build, images

TARGET = 3
TRACED = [name for name in FAMILIES if name not in EFFECTIVE]  # whose operations the rules know one by one

taken = partial(twins.of_family, target=TARGET)


def tokens(method: Any, name: str, **options: Any) -> torch.Tensor:
    """The relevance of the tokens of a family's first image."""
    return method(taken(name)[0]).attribute(images(name, 1), target=TARGET, attribute_to="tokens", **options)[0]


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    assert (got - expected).abs().max() <= 1e-10 * expected.abs().max()


@lru_cache(maxsize=2)
def traced(name: str) -> twin_rules.Trace:
    model = build(name)
    return twin_rules.Trace(model, images(name, 1), layout_for(model).stages[0].stream.module)


def agree(method: Any, name: str, expected: torch.Tensor, **given: Any) -> None:
    got = method(build(name)).attribute(images(name, 1), target=TARGET, **given)[0]
    assert (got - expected).abs().max() <= 1e-10 * expected.abs().max()


def agree_with_gradient_rules(method: Any, name: str, *, attn: bool) -> None:
    """AttnLRP and ConservativeLRP against the rules applied one by one."""
    trace = traced(name)
    arrived = trace.back(TARGET, twin_rules.Gradients(attn))
    at_tokens, pixels = (arrived[node] * trace.values[node] for node in (trace.tokens, trace.image))
    agree(method, name, at_tokens.sum(-1)[0], attribute_to="tokens")
    agree(method, name, pixels[0])
    # what arrives at the pixels is what the patch embedding hands on
    agree(method, name, pixels[0].sum(0, keepdim=True), attribute_to="pixels")
