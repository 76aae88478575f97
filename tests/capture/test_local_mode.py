"""Under the mode each place of an image is computed by itself, or from the first image."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from captum_astro.capture.local_mode import LocalMode

B, N, M, D = 3, 6, 4, 5


def _attention_parts(queries: int = N, heads: int = 2, groups: int = 2) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    query = torch.randn(B, heads, queries, D, dtype=torch.float64)
    return query, *torch.randn(2, B, groups, N, D, dtype=torch.float64)


def _close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_fused_attention_among_the_same_tokens_is_the_identity() -> None:
    query, key, value = _attention_parts()
    with LocalMode(B):
        assert torch.equal(F.scaled_dot_product_attention(query, key, value), value)
        assert torch.equal(F.scaled_dot_product_attention(query, key=key, value=value), value)


def test_heads_that_share_values_each_get_them() -> None:
    query, key, value = _attention_parts(heads=4, groups=2)
    with LocalMode(B):
        found = F.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    assert found.shape == query.shape
    for head in range(4):
        assert torch.equal(found[:, head], value[:, head // 2])


def test_other_fused_attention_reads_the_first_image() -> None:
    query, key, value = _attention_parts(queries=M)
    with LocalMode(B):
        found = F.scaled_dot_product_attention(query, key, value)
    for image in range(B):
        _close(found[image], F.scaled_dot_product_attention(query[image], key[0], value[0]))


def test_written_out_attention_is_the_identity_too() -> None:
    query, key, value = _attention_parts()
    with LocalMode(B):
        maps = (query @ key.transpose(-2, -1)).softmax(-1)
        _close(maps, torch.eye(N, dtype=torch.float64).expand_as(maps))
        _close(maps @ value, value)


def test_other_written_out_attention_changes_with_its_queries_alone() -> None:
    query, key, value = _attention_parts(queries=M)

    def run(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        with LocalMode(B):
            return (query @ key.transpose(-2, -1)).softmax(-1) @ value

    found = run(query, key, value)
    other_keys, other_values = key.clone(), value.clone()
    other_keys[1:], other_values[1:] = 7, 8
    _close(run(query, other_keys, other_values), found)
    moved = query.clone()
    moved[1] += 1
    assert not torch.allclose(run(moved, key, value)[1], found[1])
    _close(run(moved, key, value)[0], found[0])


@pytest.mark.parametrize(
    "average",
    [
        lambda x: x.mean((2, 3)), lambda x: torch.var(x, dim=(1, 2, 3)), lambda x: x.std((2, 3), keepdim=True),
        lambda x: F.adaptive_avg_pool2d(x, 1), lambda x: torch.norm(x, dim=(2, 3)),
    ],
)  # fmt: skip
def test_averages_over_all_places_are_those_of_the_first_image(average) -> None:
    x = torch.randn(B, 4, 3, 3, dtype=torch.float64)
    with LocalMode(B):
        found = average(x)
    _close(found, average(x)[:1].expand_as(found))


@pytest.mark.parametrize(
    "other", [lambda x: x.mean(1), lambda x: x.mean((0,)), lambda x: F.adaptive_avg_pool2d(x, 2), lambda x: x.sum(1)]
)
def test_other_averages_are_computed_as_ever(other) -> None:
    x = torch.randn(B, 4, 6, 6, dtype=torch.float64)
    with LocalMode(B):
        found = other(x)
    assert torch.equal(found, other(x))


@pytest.mark.parametrize("affine", [True, False])
def test_a_group_norm_takes_the_statistics_of_the_first_image(affine: bool) -> None:
    norm, x = nn.GroupNorm(2, 4, affine=affine).double(), torch.randn(B, 4, 3, 3, dtype=torch.float64)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    with LocalMode(B):
        found = norm(x)
    _close(found[0], norm(x)[0])
    for image in range(B):
        for channel in range(4):
            group = x[0, channel // 2 * 2 : channel // 2 * 2 + 2]
            expected = (x[image, channel] - group.mean()) / (group.var(unbiased=False) + norm.eps).sqrt()
            if affine:
                expected = expected * norm.weight[channel] + norm.bias[channel]
            _close(found[image, channel], expected)


def test_windows_are_samples_of_their_image() -> None:
    windows = torch.randn(B * 2, 4, 3, 3, dtype=torch.float64)  # two of each image
    with LocalMode(B):
        found = windows.mean((2, 3))
    for image in range(B):
        _close(found[2 * image : 2 * image + 2], windows[:2].mean((2, 3)))


def test_what_is_no_batch_of_these_images_is_left() -> None:
    x = torch.randn(B + 1, 4, 3, 3, dtype=torch.float64)
    with LocalMode(B):
        assert torch.equal(x.mean((2, 3)), found := x.mean((2, 3)))
    assert torch.equal(found, x.mean((2, 3)))


def test_a_softmax_over_another_dimension_is_a_softmax() -> None:
    x = torch.randn(B, N, N, dtype=torch.float64)
    with LocalMode(B):
        found = x.softmax(1)
    _close(found, x.softmax(1))


@pytest.mark.parametrize("need_weights", [True, False])
def test_pytorch_s_module_gives_each_token_its_own_value(need_weights: bool) -> None:
    torch.manual_seed(1)
    module, x = nn.MultiheadAttention(8, 2, batch_first=True).double().eval(), torch.randn(B, N, 8, dtype=torch.float64)
    with LocalMode(B), torch.no_grad():
        found = module(x, x, x, need_weights=need_weights)[0]
    values = F.linear(x, module.in_proj_weight[16:], module.in_proj_bias[16:])
    _close(found, module.out_proj(values))


@pytest.mark.parametrize(
    "options", [{}, {"add_bias_kv": True}, {"add_zero_attn": True}, {"kdim": 6, "vdim": 7}], ids=str
)
def test_pytorch_s_module_reads_other_tokens_of_the_first_image(options) -> None:
    torch.manual_seed(1)
    module = nn.MultiheadAttention(8, 2, batch_first=True, **options).double().eval()
    query = torch.randn(B, M, 8, dtype=torch.float64)
    key, value = (torch.randn(B, N, options.get(name, 8), dtype=torch.float64) for name in ("kdim", "vdim"))
    with LocalMode(B), torch.no_grad():
        found = module(query, key, value)[0]
    first = (x[:1].expand(B, -1, -1) for x in (key, value))
    _close(found, module(query, *first)[0].detach())


@pytest.mark.parametrize("options", [{"add_bias_kv": True}, {"add_zero_attn": True}], ids=str)
def test_keys_that_are_no_tokens_take_no_part(options) -> None:
    torch.manual_seed(1)
    module, plain = (nn.MultiheadAttention(8, 2, **given).double().eval() for given in (options, {}))
    plain.load_state_dict(module.state_dict(), strict=False)
    x, padding = torch.randn(N, B, 8, dtype=torch.float64), torch.zeros(B, N, dtype=torch.bool)
    with LocalMode(B), torch.no_grad():
        _close(module(x, x, x, key_padding_mask=padding)[0], plain(x, x, x)[0])
