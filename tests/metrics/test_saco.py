from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_astro.metrics.saco import saco, saco_score
from tests.families import build


def _score(s: list[float], d: list[float]) -> float:
    total, weights = 0.0, 0.0
    for i in range(len(s)):
        for j in range(i + 1, len(s)):
            weight = s[i] - s[j]
            total += weight if d[i] >= d[j] else -weight
            weights += abs(weight)
    return total / weights if weights else math.nan


def _saco(m: torch.Tensor, image: torch.Tensor, probability: Callable[[torch.Tensor], float], groups: int) -> float:
    """One image: every group hidden pixel by pixel, with the unperturbed image's probability."""
    height, width = m.shape
    places = sorted(
        ((i, j) for i in range(height) for j in range(width)), key=lambda p: (-m[p].item(), p[0] * width + p[1])
    )
    untouched = probability(image)
    s, d = [], []
    for g in range(groups):
        members = [place for rank, place in enumerate(places) if rank * groups // len(places) == g]
        hidden = image.clone()
        for channel in range(len(image)):
            for i, j in members:
                hidden[channel, i, j] = image[channel].mean()
        s.append(math.fsum(m[place].item() for place in members) / len(members))
        d.append(untouched - probability(hidden))
    return _score(s, d)


def _model(pixels: int, classes: int = 3) -> torch.nn.Module:
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(3 * pixels, 8), torch.nn.GELU(), torch.nn.Linear(8, classes)
    )
    return model.double().eval()


def _predict(model: torch.nn.Module, targets: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    def predict(pictures: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return model(pictures).softmax(-1).gather(1, targets[owners, None])[:, 0]

    return predict


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3), st.integers(2, 5), st.integers(2, 5), st.integers(2, 4), st.sampled_from([0, 1, 3]),
    st.integers(0, 999),
)  # fmt: skip
def test_equals_its_definition(batch: int, height: int, width: int, groups: int, levels: int, seed: int) -> None:
    torch.manual_seed(seed)
    maps, images = torch.randn(batch, height, width).double(), torch.rand(batch, 3, height, width).double()
    if levels:
        maps = (maps * levels).round()
    targets = torch.randint(0, 3, (batch,))
    model = _model(height * width)
    found = saco(maps, images, _predict(model, targets), groups)
    for i in range(batch):
        expected = _saco(maps[i], images[i], lambda x, i=i: model(x[None]).softmax(-1)[0, targets[i]].item(), groups)
        assert found[i].item() == pytest.approx(expected, abs=1e-10, nan_ok=True)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(2, 12), st.integers(0, 999))
def test_score_equals_its_definition(batch: int, groups: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    salience = torch.randn(batch, groups, generator=generator, dtype=torch.float64).sort(1, descending=True).values
    drop = (2 * torch.randn(batch, groups, generator=generator, dtype=torch.float64)).round()
    expected = [_score(s, d) for s, d in zip(salience.tolist(), drop.tolist(), strict=True)]
    assert saco_score(salience, drop).tolist() == pytest.approx(expected, abs=1e-13)


def test_by_hand() -> None:
    # 2 x 2 pixels in two groups; the model's probability is the mean of the picture, whose mean colour is 0.4
    images = torch.tensor([[0.9, 0.5], [0.1, 0.1]]).expand(1, 3, 2, 2)
    maps = torch.tensor([[[4.0, 3.0], [2.0, 1.0]]])

    def mean(pictures: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
        return pictures.mean((1, 2, 3))

    assert saco(maps, images, mean, groups=2).item() == 1
    assert saco(-maps, images, mean, groups=2).item() == -1
    # s 3 2 0: weights 1 3 2; d .5 .1 .2: plus, plus, minus
    assert saco_score(torch.tensor([[3.0, 2, 0]]), torch.tensor([[0.5, 0.1, 0.2]])).item() == pytest.approx(2 / 6)
    # equal drops count plus
    assert saco_score(torch.tensor([[3.0, 2, 0]]), torch.ones(1, 3)).item() == 1


def test_images_passed_to_the_model() -> None:
    images = torch.rand(2, 3, 6, 5)
    maps = torch.rand(2, 6, 5)
    calls: list[tuple[torch.Tensor, torch.Tensor]] = []

    def predict(pictures: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
        calls.append((pictures, owners))
        return pictures.mean((1, 2, 3))

    saco(maps, images, predict)
    ((pictures, owners),) = calls
    assert owners.tolist() == [0] * 10 + [1] * 10
    changed = (pictures != images[owners]).any(1)
    assert changed.flatten(1).sum(1).tolist() == [3] * 20
    for owner in (0, 1):
        assert changed[owners == owner].sum(0).eq(1).all()  # each pixel is hidden once
        first = changed[owners == owner][0]
        assert maps[owner][first].min() > maps[owner][~first].max()
        colour = images[owner].mean((1, 2))
        torch.testing.assert_close(pictures[owners == owner][0][:, first], colour[:, None].expand(3, 3))


def test_groups_of_224_differ_by_one_pixel_at_most() -> None:
    sizes = []

    def predict(pictures: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
        sizes.extend((pictures == 0.5).all(1).flatten(1).sum(1).tolist())
        return torch.rand(len(pictures))

    image = torch.zeros(1, 3, 224, 224)
    image[..., :112] = 1
    saco(torch.rand(1, 224, 224), image, predict)
    assert sorted(set(sizes)) == [5017, 5018]
    assert sum(sizes) == 224 * 224


def test_random_order_scores_zero_on_average() -> None:
    torch.manual_seed(0)
    images = torch.rand(200, 3, 10, 10).double()
    scores = saco(torch.rand(200, 10, 10), images, _predict(_model(100), torch.zeros(200, dtype=torch.long)))
    assert abs(scores.mean().item()) < 4 * scores.std().item() / 200**0.5
    assert scores.std() > 0.1


def test_unscorable_maps_are_nan() -> None:
    maps, images = torch.rand(5, 6, 6), torch.rand(5, 3, 6, 6)
    maps[0], maps[1, 0, 0], maps[2, 3, 3] = 0.1, torch.nan, torch.inf

    def predict(pictures: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
        return torch.where(owners == 3, torch.nan, pictures.mean((1, 2, 3)))

    assert saco(maps, images, predict).isnan().tolist() == [True, True, True, True, False]
    for value in (0.1, 1 / 3, -7e30):
        constant = torch.full((2, 7, 9), value, dtype=torch.float64)
        assert saco(constant, torch.rand(2, 3, 7, 9), lambda pictures, owners: pictures.mean((1, 2, 3))).isnan().all()


def test_each_image_separately_with_the_same_normalisation() -> None:
    model, images = build("cls", torch.float64), torch.rand(3, 3, 32, 32).double()
    maps, targets = images.mean(1).float(), torch.tensor([1, 2, 4])
    together = saco(maps, (images - 0.5) / 0.5, _predict(model, targets))
    parts = [
        saco(maps[i : i + 1], (images[i : i + 1] - 0.5) / 0.5, _predict(model, targets[i : i + 1])) for i in range(3)
    ]
    torch.testing.assert_close(torch.cat(parts), together, rtol=0, atol=1e-12)
    normalised = _predict(torch.nn.Sequential(Normalise(), model), targets)
    torch.testing.assert_close(saco(maps[:, None], images, normalised), together, rtol=0, atol=1e-12)
    assert saco(maps[:0], images[:0], normalised).shape == (0,)
    assert together.dtype == torch.float64


class Normalise(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - 0.5) / 0.5


def test_bad_input_is_named() -> None:
    maps, images = torch.rand(2, 4, 4), torch.rand(2, 3, 4, 4)

    def predict(pictures: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
        return pictures.mean((1, 2, 3))

    for bad in (images[:1], images[:, 0], images[..., :3]):
        with pytest.raises(ValueError, match=r"images: \(B, C, H, W\) of the maps' size.*maps \(2, 4, 4\)"):
            saco(maps, bad, predict)
    for groups in (1, 17, 2.5, True):
        with pytest.raises(ValueError, match="groups: a number from 2 to the 16 pixels"):
            saco(maps, images, predict, groups)
    with pytest.raises(ValueError, match=r"predict: one probability for each of 20 images.*not \(20, 3\)"):
        saco(maps, images, lambda pictures, owners: pictures.mean((2, 3)))
    with pytest.raises(ValueError, match=r"salience and drop"):
        saco_score(torch.rand(2, 3), torch.rand(2, 4))
    with pytest.raises(ValueError, match=r"salience and drop"):
        saco_score(torch.rand(2, 1), torch.rand(2, 1))
