"""Deleting tokens: beside loops over words, and one review at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch

from captum_astro.metrics import comprehensiveness, shortened, sufficiency, token_places, token_removals
from captum_astro.metrics.declaration import Given
from captum_astro.metrics.registry import all_metrics, metric_named, text_metrics
from captum_astro.models.astromorphic_text import AstromorphicTextClassifier

LENGTHS = torch.tensor([12, 7, 1, 2])
STEPS = 5


def _reviews() -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attributions with ties, negative values and, in padding, values that must not matter."""
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 40, (4, 12), generator=random)
    attributions = torch.randint(-2, 3, (4, 12), generator=random).double()
    padding = torch.arange(12) >= LENGTHS[:, None]
    return ids.masked_fill(padding, 0), attributions.masked_fill(padding, 9.0)


def _model(attention: str = "astromorphic") -> AstromorphicTextClassifier:
    torch.manual_seed(0)
    model = AstromorphicTextClassifier(40, 2, dim=8, num_heads=2, length=12, attention=attention).double().eval()
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter)
    return model


def _texts_by_loops(ids: Sequence[int], values: Sequence[float]) -> dict[str, list[list[int]]]:
    """The texts of each metric, by deleting one token after the other from a list."""
    n = len(ids)
    order = sorted(range(n), key=lambda i: (-values[i], -i))

    def left(gone: Sequence[int]) -> list[int]:
        return [token for i, token in enumerate(ids) if i not in gone]

    tops = [math.ceil(n * percent / 100) for percent in (1, 5, 10, 20, 50)]
    counts = [math.floor(k * n / STEPS + 0.5) for k in range(STEPS + 1)]
    return {
        "without_logits": [list(ids), *(left(order[:top]) for top in tops)],
        "only_logits": [list(ids), *(left(order[top:]) for top in tops)],
        "most_first_logits": [left(order[:count]) for count in counts],
        "least_first_logits": [left(order[n - count :]) for count in counts],
    }


@pytest.mark.parametrize("need", ["without_logits", "only_logits", "most_first_logits", "least_first_logits"])
def test_the_texts_are_those_of_loops(need: str) -> None:
    ids, attributions = _reviews()
    removed = token_removals(attributions, LENGTHS, STEPS)[need]
    found = shortened(ids, removed)
    for i, n in enumerate(LENGTHS.tolist()):
        assert removed[i, :, n:].all()  # padding is never left
        texts = _texts_by_loops(ids[i, :n].tolist(), attributions[i, :n].tolist())[need]
        assert found[i].tolist() == [text + [0] * (12 - len(text)) for text in texts]


@torch.no_grad()
@pytest.mark.parametrize("attention", ["astromorphic", "softmax"])
@pytest.mark.parametrize("name", list(text_metrics()))
def test_scores_are_those_of_loops_one_review_at_a_time(name: str, attention: str) -> None:
    ids, attributions = _reviews()
    model, metric = _model(attention), metric_named(name)
    need = metric.needs[1]
    texts = shortened(ids, token_removals(attributions, LENGTHS, STEPS)[need])
    logits = model(texts.flatten(0, 1)).unflatten(0, texts.shape[:2])
    classes = model(ids).argmax(-1)
    found = metric.compute(Given(classes=classes, **{need: logits}))
    values = found if isinstance(found, torch.Tensor) else found.values
    for i, n in enumerate(LENGTHS.tolist()):
        p = []
        for text in _texts_by_loops(ids[i, :n].tolist(), attributions[i, :n].tolist())[need]:
            exponentials = model(torch.tensor([text or [0]]))[0].exp().tolist()
            p.append(exponentials[int(classes[i])] / sum(exponentials))
        if name in ("comprehensiveness", "sufficiency"):
            expected = sum(p[0] - one for one in p[1:]) / 5
        else:
            expected = sum((a + b) / 2 for a, b in itertools.pairwise(p)) / STEPS
            assert found.curves[i].tolist() == pytest.approx(p, abs=1e-10)
        assert float(values[i]) == pytest.approx(expected, abs=1e-10)


def test_a_review_with_one_token() -> None:
    removed = token_removals(torch.tensor([[0.3]]), torch.tensor([1]))
    assert removed["without_logits"].flatten().tolist() == [False] + [True] * 5
    assert removed["only_logits"].flatten().tolist() == [False] * 6
    logits = torch.tensor([[[0.0, math.log(3)], *[[0.0, 0.0]] * 5]], dtype=torch.float64)
    assert float(comprehensiveness(logits, torch.tensor([1]))) == pytest.approx(0.25, abs=1e-12)
    assert float(sufficiency(logits[:, :1].expand(1, 6, 2), torch.tensor([1]))) == 0


def test_of_equal_tokens_the_later_is_more_important() -> None:
    places = token_places(torch.tensor([[0.0, -0.0, 1.0, 0.0, 5.0]]), torch.tensor([4]))
    assert places.tolist() == [[3, 2, 0, 1, 5]]


def test_metrics_of_text_are_none_of_the_image_benchmark() -> None:
    assert not set(text_metrics()) & set(all_metrics())
    assert {name for name, info in text_metrics().items() if info.direction < 0} == {"sufficiency", "most first"}


@pytest.mark.parametrize(
    ("attributions", "lengths", "message"),
    [
        (torch.ones(2, 3), [3], r"attributions \(B, n\) and lengths \(B,\) are needed, not \(2, 3\) and \(1,\)"),
        (torch.ones(1, 3), [4], r"lengths: from 1 to 3, .*, not \[4\]"),
        (torch.ones(1, 3), [0], r"lengths: from 1 to 3, .*, not \[0\]"),
        (torch.tensor([[1.0, torch.nan]]), [2], "NaN or infinite"),
    ],
)
def test_bad_input(attributions: torch.Tensor, lengths: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        token_places(attributions, torch.tensor(lengths))


def test_what_is_deleted_belongs_to_the_texts() -> None:
    with pytest.raises(ValueError, match=r"token_ids \(B, n\) and removed \(B, L, n\) are needed"):
        shortened(torch.ones(1, 3, dtype=torch.long), torch.zeros(1, 2, 4, dtype=torch.bool))
