"""The z+ rule against its equation, for linear layers and convolutions."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from captum_astro.functional.z_plus import LinearZPlus, Workspace


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def _carried(output: torch.Tensor, inputs: list[torch.Tensor], relevance: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(output, inputs, relevance)


def test_linear_z_plus() -> None:
    x, w, r = _normal(2, 5).requires_grad_(), _normal(4, 5), _normal(2, 4)
    w[:, 0] = w[:, 0].abs()
    with torch.no_grad():
        x[:, 0] = x[:, 0].abs()  # something positive in every sum
    out = LinearZPlus.apply(x, w, _normal(4), F.linear, torch.matmul)
    (got,) = _carried(out, [x], r)
    expected = torch.zeros(2, 5, dtype=torch.float64)
    for b in range(2):
        for j in range(4):
            total = sum(max(float(x[b, i] * w[j, i]), 0) for i in range(5))
            for i in range(5):
                expected[b, i] += max(float(x[b, i] * w[j, i]), 0) / total * r[b, j]
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(got.sum(1), r.sum(1), rtol=1e-10, atol=0)


def test_convolution_z_plus_is_the_linear_rule() -> None:
    x, w, r = _normal(2, 3, 4, 4).requires_grad_(), _normal(5, 3, 4, 4), _normal(2, 5)
    bias = _normal(5)
    out = LinearZPlus.apply(x, w, bias, F.conv2d, lambda r, weight: torch.nn.grad.conv2d_input(x.shape, weight, r))
    torch.testing.assert_close(out, F.conv2d(x, w, bias))
    (got,) = _carried(out, [x], r[:, :, None, None])
    flat = x.detach().flatten(1).requires_grad_()
    same = LinearZPlus.apply(flat, w.flatten(1), None, F.linear, torch.matmul)
    torch.testing.assert_close(got.flatten(1), _carried(same, [flat], r)[0], rtol=1e-10, atol=1e-14)


def test_linear_layer_of_a_feature_map() -> None:
    """Channels last, ``(B, H, W, C)``: not a convolution, whose channels are the second dimension."""
    x, weight, bias = _normal(2, 3, 3, 4), _normal(3, 4), _normal(3)
    output = LinearZPlus.apply(x, weight, bias, F.linear, torch.matmul)
    torch.testing.assert_close(output, F.linear(x, weight, bias))


def test_a_workspace_is_right_whatever_was_there_before() -> None:
    workspace = Workspace()
    for x in (_normal(3, 4), _normal(5, 7), _normal(2, 3).float(), _normal(4, 3).T, _normal(2, 2)):
        found = workspace.absolute(x)
        assert found.dtype == x.dtype
        assert torch.equal(found, x.abs())
    first = workspace.absolute(_normal(6))
    assert workspace.absolute(_normal(6)).data_ptr() == first.data_ptr()
