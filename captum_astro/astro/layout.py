"""The layout of a model with a modulated layer."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import torch

from captum_astro.layouts.base import Layout
from captum_astro.layouts.errors import UnsupportedModelError
from captum_astro.layouts.steps import Linear, Measured, Modulated, Step
from captum_astro.layouts.structure import AttentionBranch, FeedForwardBranch

_VALUE_PROJECTIONS = ("qkv", "v_proj", "in_proj", "kv", "v")


def with_modulated(layout: Layout, step: Modulated) -> Layout:
    """The same layout, with the modulated layer among the steps, or as the value projection, of its attention.

    A layer anywhere else changes the recorded values but not their meaning. A layer that serves attention and something
    else at the same time is rejected when its attention is read.

    Args:
        layout: The layout of the plain model, or of one with another modulated layer.
        step: The modulated layer and its effect.
    """
    result = copy.copy(layout)
    result.stages = [
        replace(stage, branches=tuple(_branch(branch, step) for branch in stage.branches)) for stage in layout.stages
    ]
    if layout.pooling is not None:
        branch = _branch(layout.pooling.branch, step)
        assert isinstance(branch, AttentionBranch)
        result.pooling = replace(layout.pooling, branch=branch)
    return result


def _branch(branch: AttentionBranch | FeedForwardBranch, modulated: Modulated) -> AttentionBranch | FeedForwardBranch:
    if isinstance(branch, FeedForwardBranch):
        return branch
    branch = replace(branch, steps=tuple(_step(step, modulated, branch.name) for step in branch.steps))
    if any(getattr(branch.module, name, None) is modulated.module for name in _VALUE_PROJECTIONS):
        return replace(branch, modulated_values=modulated)
    return branch


def _step(step: Step, modulated: Modulated, name: str) -> Step:
    if not isinstance(step, Linear):
        return step
    if step.weight is modulated.module.weight:
        return modulated
    if step.weight.untyped_storage().data_ptr() == modulated.module.weight.untyped_storage().data_ptr():
        return Modulated(modulated.module, partial(_refuse, name))
    return step


def _refuse(name: str, x: torch.Tensor) -> Measured:
    raise UnsupportedModelError(
        f"The modulated layer projects {name} together with another branch, so what each adds cannot be told apart. "
        f"Choose another layer for the astrocytes, or a method that does not read attention."
    )
