"""What is noted of steps and of changes of resolution."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from captum_astro import UnsupportedModelError
from captum_astro.capture.records import spots
from captum_astro.capture.step_notes import MergingNotes, StepNotes, check_size, placed
from captum_astro.functional.token_map import merge_map, window_map
from captum_astro.layouts.steps import Activation, Linear, Measured, Modulated, Norm, Scale, Tap
from captum_astro.layouts.structure import Merging

B, N, D, GRID = 2, 6, 4, (2, 3)


def _x(*shape: int) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(*shape, dtype=torch.float64)


def _close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_only_steps_with_statistics_are_measured() -> None:
    norm, activation = Norm(nn.LayerNorm(D)), Activation(nn.GELU())
    notes = StepNotes((activation, Linear(torch.eye(D)), Scale(2.0), norm))
    assert notes.measured == [activation, norm]


def test_a_step_that_did_not_run_is_named() -> None:
    notes = StepNotes((Norm(nn.LayerNorm(D)),))
    with pytest.raises(UnsupportedModelError, match=r"LayerNorm of blocks\.1\.attn did not run in the pass"):
        notes.statistics(None, "blocks.1.attn")


@pytest.mark.parametrize("channels", ["last", "first"])
def test_a_norm_is_noted_by_one_over_its_deviation(channels: str) -> None:
    norm = nn.LayerNorm(D).double()
    x = _x(B, *GRID, D)
    notes = StepNotes((Norm(norm, channels=channels),))
    notes.note(0, x if channels == "last" else x.movedim(-1, 1))
    (found,) = notes.statistics(None, "it")
    assert found.shape == (B, N)
    for image in range(B):
        for place in range(N):
            token = x[image].reshape(N, D)[place]
            _close(found[image, place], 1 / (token.var(unbiased=False) + norm.eps).sqrt())


def test_a_norm_of_each_head_has_one_of_each() -> None:
    notes = StepNotes((Norm(nn.LayerNorm(D).double(), per_head=True),))
    notes.note(0, _x(B, 3, N, D))
    (found,) = notes.statistics(None, "it")
    assert found.shape == (B, 3, N)


def test_an_activation_is_noted_by_its_factors() -> None:
    x = _x(B, N, D)
    for first in (None, 3):
        notes = StepNotes((Activation(nn.SiLU(), first=first),))
        notes.note(0, x)
        (found,) = notes.statistics(None, "it")
        _close(found * x[..., :first], nn.functional.silu(x)[..., :first])


def test_a_modulated_layer_is_measured_by_itself() -> None:
    effect = Measured(torch.ones(B, D), torch.ones(B, N))
    seen: list[torch.Tensor] = []

    def measure(x: torch.Tensor) -> Measured:
        seen.append(x)
        return effect

    notes = StepNotes((Modulated(nn.Linear(D, D), measure),))
    notes.note(0, x := _x(B, N, D).requires_grad_())
    assert notes.statistics(window_map(GRID, (1, 3)), "it") == (effect,)  # which windows do not split
    assert torch.equal(seen[0], x)
    assert not seen[0].requires_grad


def test_statistics_of_whole_images_are_split_into_windows() -> None:
    windows = window_map(GRID, (1, 3))
    x = _x(B, N, D)
    for after in (True, False):
        notes = StepNotes((Norm(nn.LayerNorm(D).double(), after_windows=after),))
        notes.note(0, x)
        (found,) = notes.statistics(windows, "it")
        (whole,) = notes.statistics(None, "it")
        _close(found, whole.reshape(B * 2, 3) if after else whole)


def _merging(**given: object) -> Merging:
    torch.manual_seed(1)
    weight = torch.randn(5, 4 * D, dtype=torch.float64)
    return Merging("downsample", merge_map, (Linear(weight),), **given)


def test_new_tokens_are_made_of_the_residual_stream() -> None:
    residual, merging = _x(B, 16, D), _merging()
    record = MergingNotes(merging).record(residual, (4, 4))
    assert record.residual is residual
    for target in range(4):
        sources = residual[:, record.tokens.index[0, target]].flatten(1)
        _close(record.rebuilt()[:, target], sources @ merging.steps[0].weight.T)


def test_new_tokens_are_made_of_what_entered_if_that_is_another() -> None:
    residual, entered = _x(B, 16, D), _x(B, 4, 4, D) * 3
    module = nn.Identity()
    notes = MergingNotes(_merging(entering=Tap(module), merged=Tap(module, "output")))
    notes.note_entering(entered)
    notes.note_merged(new := _x(B, 4, 5))
    record = notes.record(residual, (4, 4))
    assert torch.equal(record.residual, entered.flatten(1, 2))
    assert torch.equal(record.merged, new[:, spots(4)])


@pytest.mark.parametrize("flag", ["maximum", "averaged", "shared", "replaced"])
def test_the_description_is_passed_on(flag: str) -> None:
    joined = torch.zeros(1, 2, 5)
    record = MergingNotes(replace(_merging(joined=joined), **{flag: True})).record(_x(B, 16, D), (4, 4))
    assert record.joined is joined
    assert [name for name in ("maximum", "averaged", "shared", "replaced") if getattr(record, name)] == [flag]


def test_tokens_of_another_size_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"downsample is for 16 tokens, but .* has 15.*images of this size"):
        MergingNotes(_merging()).record(_x(B, 15, D), (4, 4))
    with pytest.raises(UnsupportedModelError, match="A token map is for 6 tokens, but the residual stream there has 7"):
        placed(lambda grid: window_map(grid, (1, 3)), GRID, _x(B, 7, D))
    check_size(merge_map((4, 4)), _x(B, 16, D), "it")


def test_all_tokens_in_order_need_no_map() -> None:
    assert placed(None, GRID, _x(B, N, D)) is None
    assert placed(lambda grid: window_map(grid, (1, 3)), GRID, _x(B, N, D)).index.shape == (2, 3, 1)
