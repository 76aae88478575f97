"""Metrics that mask, impute or explain again, against loops and other packages."""

from __future__ import annotations

import math

import numpy as np
import pytest
import quantus
import torch
from captum.metrics import sensitivity_max

from captum_astro.metrics.adcc import adcc, coherency, complexity
from captum_astro.metrics.average_drop import average_drop, average_increase, masked_by_map
from captum_astro.metrics.declaration import Given
from captum_astro.metrics.max_sensitivity import max_sensitivity
from captum_astro.metrics.random_cells import SETS, SHARES, Removals, infidelity, random_sets, removals, sensitivity_n
from captum_astro.metrics.road import SHARES as REMOVED
from captum_astro.metrics.road import imputed, removed
from captum_astro.metrics.sparseness import sparseness


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(pixels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """A model whose output is a sum over the pixels."""
    return (pixels * weights).sum((1, 2, 3))


def given_linear(pixels: torch.Tensor, maps: torch.Tensor, weights: torch.Tensor) -> Given:
    whole = linear(pixels, weights)
    return Given(
        maps=maps,
        pixels=pixels,
        classes=torch.zeros(len(maps)).long(),
        logits=torch.stack([whole, torch.log1p(-whole.exp())], 1),  # the class's probability is exp(whole)
        probability=lambda pictures, owners: linear(pictures, weights).exp(),
    )


def test_the_image_times_its_map() -> None:
    pixels, maps = rand(2, 3, 4, 5), torch.tensor([[[-1.0, 3.0]]]).expand(2, 4, 2).repeat(1, 1, 3)[..., :5] * 1.0
    found = masked_by_map(pixels, maps)
    for b in range(2):
        low, high = maps[b].min().item(), maps[b].max().item()
        for c, y, x in np.ndindex(3, 4, 5):
            expected = pixels[b, c, y, x].item() * (maps[b, y, x].item() - low) / (high - low)
            assert found[b, c, y, x].item() == pytest.approx(expected, abs=1e-12)
    assert average_drop(torch.tensor([0.5]), torch.tensor([0.5])).item() == 0
    assert average_increase(torch.tensor([0.5]), torch.tensor([0.5])).item() == 0


def test_adcc_from_its_parts() -> None:
    maps, again = rand(3, 6, 7), rand(3, 6, 7, seed=1)
    for b in range(3):
        r = np.corrcoef(maps[b].flatten(), again[b].flatten())[0, 1]
        unit = (maps[b] - maps[b].min()) / (maps[b].max() - maps[b].min())
        assert coherency(maps, again)[b].item() == pytest.approx((r + 1) / 2, abs=1e-12)
        assert complexity(maps)[b].item() == pytest.approx(unit.mean().item(), abs=1e-12)
        expected = 3 / (1 / ((r + 1) / 2) + 1 / (1 - unit.mean().item()) + 1 / (1 - 0.25))
        drop = torch.full((3,), 0.25, dtype=torch.float64)
        assert adcc(drop, coherency(maps, again), complexity(maps))[b].item() == pytest.approx(expected, abs=1e-12)
    flat = torch.full((1, 3, 11), 0.1)  # whose mean is rounded
    assert coherency(flat, rand(1, 3, 11)).item() == 0.5
    assert adcc(torch.ones(1), torch.ones(1), torch.zeros(1)).item() == 0  # everything is lost


@pytest.mark.parametrize("size", [(14, 14), (28, 42), (33, 20), (5, 3)])
def test_random_sets_are_cells(size: tuple[int, int]) -> None:
    sets = random_sets(*size)
    assert sets.shape == (len(SHARES), SETS, *size)
    assert torch.equal(sets, random_sets(*size))
    shares = sets.double().mean((1, 2, 3))
    assert (shares.diff() > 0).all()
    assert len({tuple(one.flatten().tolist()) for one in sets[4]}) > SETS / 2


def test_a_linear_model_is_explained_by_its_terms() -> None:
    pixels = rand(2, 3, 28, 28)
    weights = -rand(1, 3, 28, 28, seed=1) / 10000
    terms = (pixels * weights).sum(1)
    found = removals(given_linear(pixels, terms, weights))
    for b, c, k in np.ndindex(2, len(SHARES), SETS):
        gone = random_sets(28, 28)[c, k]
        left = pixels[b].masked_fill(gone, 0)
        drop = math.exp(linear(pixels[b, None], weights).item()) - math.exp(linear(left[None], weights).item())
        assert found.drops[b, c, k].item() == pytest.approx(drop, abs=1e-12)
        assert found.sums[b, c, k].item() == pytest.approx(terms[b][gone].sum().item(), abs=1e-12)
    assert (sensitivity_n(found) > 0.99).all()
    assert (sensitivity_n(found._replace(sums=-found.sums)) < -0.99).all()


def test_correlation_and_least_squares() -> None:
    sums, drops = rand(2, 3, 6), rand(2, 3, 6, seed=1)
    for b in range(2):
        each = [np.corrcoef(sums[b, c], drops[b, c])[0, 1] for c in range(3)]
        assert sensitivity_n(Removals(sums, drops))[b].item() == pytest.approx(np.mean(each), abs=1e-12)
        _, residual, *_ = np.linalg.lstsq(sums[b].reshape(-1, 1), drops[b].reshape(-1), rcond=None)
        assert infidelity(Removals(sums, drops))[b].item() == pytest.approx(float(residual[0]) / 18, abs=1e-12)


def test_a_share_at_which_nothing_varies_does_not_count() -> None:
    same, varied = rand(20, 1, 1).expand(20, 3, 6), rand(20, 3, 6, seed=1)  # the mean of some is rounded
    some = same.clone()
    some[:, 1:] = rand(20, 2, 6, seed=2)
    rest = sensitivity_n(Removals(some[:, 1:], varied[:, 1:]))
    assert torch.allclose(sensitivity_n(Removals(some, varied)), rest)
    assert torch.allclose(sensitivity_n(Removals(varied, some)), rest)
    assert sensitivity_n(Removals(same, varied)).isnan().all()


def test_max_sensitivity_is_captums() -> None:
    pixels, weights = rand(2, 3, 6, 6), rand(1, 3, 6, 6, seed=1)

    def explain(images: torch.Tensor, owners: torch.Tensor | None = None) -> torch.Tensor:
        return (images.square() * weights).sum(1)

    maps = explain(pixels)
    noise: list[torch.Tensor] = []
    found = max_sensitivity(maps, pixels, lambda images, owners: noise.append(images - pixels) or explain(images))
    assert all(each.abs().max() <= 0.02 for each in noise)
    assert len(noise) == 10

    def same_noise(inputs: tuple[torch.Tensor, ...], *rest: object) -> tuple[torch.Tensor, ...]:
        return (torch.cat([image + torch.stack([each[i] for each in noise]) for i, image in enumerate(pixels)]),)

    theirs = sensitivity_max(lambda images: (explain(images[0]),), pixels, same_noise, n_perturb_samples=10)
    assert torch.allclose(found, theirs.double(), rtol=1e-6)


def test_sparseness_is_quantus() -> None:
    maps = torch.rand(4, 8, 9, generator=torch.Generator().manual_seed(3)) - 0.3
    theirs = quantus.Sparseness(disable_warnings=True)(
        model=None, x_batch=np.zeros((4, 1, 8, 9)), y_batch=np.zeros(4, int), a_batch=maps[:, None].abs().numpy()
    )
    assert sparseness(maps).tolist() == pytest.approx(theirs, abs=1e-5)
    assert sparseness(torch.zeros(1, 4, 4)).isnan().all()
    one = torch.zeros(1, 4, 4)
    one[0, 1, 2] = -3
    assert sparseness(one).item() == pytest.approx(15 / 16)


def test_a_plane_is_restored_without_its_middle() -> None:
    rows, columns = torch.meshgrid(torch.arange(9.0), torch.arange(11.0), indexing="ij")
    image = torch.stack([rows, 2 * columns, rows - columns]).double()
    gone = torch.zeros(9, 11, dtype=torch.bool)
    gone[3:6, 2:8] = True  # away from the border, the averages of a plane are its own values
    assert torch.allclose(imputed(image, gone, noise=0), image, atol=1e-9)
    noisy = imputed(image, gone, noise=0.1)
    assert torch.equal(noisy[:, ~gone], image[:, ~gone])
    assert 0.05 < (noisy - image)[:, gone].std() < 0.2
    assert torch.equal(imputed(image, torch.zeros_like(gone)), image)


def test_the_most_important_pixels_are_removed_with_all_channels() -> None:
    pixels, maps = rand(2, 3, 10, 10), rand(2, 10, 10, seed=1)
    found = removed(maps, pixels)
    assert found.shape == (2, len(REMOVED), 3, 10, 10)
    for b, (level, share) in ((b, each) for b in range(2) for each in enumerate(REMOVED)):
        changed = (found[b, level] != pixels[b]).any(0)
        top = maps[b].flatten().topk(round(100 * share)).indices
        assert set(changed.flatten().nonzero()[:, 0].tolist()) == set(top.tolist())


def test_the_shares_of_removed_pixels_are_not_rounded_down_by_a_pixel() -> None:
    pixels, maps = rand(1, 1, 11, 30), rand(1, 11, 30, seed=1)  # 330 * 0.7 is 230.99999999999997
    changed = (removed(maps, pixels) != pixels[:, None]).flatten(2).sum(2)
    assert changed.tolist() == [[33, 66, 99, 132, 165, 231, 297]]
