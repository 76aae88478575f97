"""The orders of tokens: those of every method, and what they are compared with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.testing import assert_close

from captum_astro import explainers
from captum_astro.evaluation.words.answers import answers
from captum_astro.evaluation.words.orders import Texts, leave_one_out, orders_for
from tests.evaluation.words.making import TEXTS, classifier, encode
from tests.libraries import NARROW

OWN = ["IntegratedGradients", "LeaveOneOut", "Random"]
REFUSED = {"astromorphic": [*NARROW], "softmax": [name for name in NARROW if name != "AGCAM"]}
NAMES = {
    attention: [explainer.name for explainer in explainers() if explainer.name not in refused] + OWN
    for attention, refused in REFUSED.items()
}


def _texts(*chosen: int) -> Texts:
    encoded = encode([TEXTS[i] for i in chosen])
    ids = pad_sequence(encoded, batch_first=True)
    return Texts(ids, torch.tensor([len(one) for one in encoded]), torch.tensor([i % 2 for i in chosen]), [*chosen])


@pytest.mark.parametrize("attention", REFUSED)
def test_methods_that_are_not_defined_are_left_out_and_named(attention: Any) -> None:
    found, refused = orders_for(classifier(attention), 8, draws=2, seed=0)
    assert list(found) == NAMES[attention]
    assert list(refused) == REFUSED[attention]
    assert all(refused.values())


@pytest.mark.parametrize("attention", ["astromorphic", "softmax"])
def test_a_review_has_the_same_order_in_any_batch(attention: Any) -> None:
    found, _ = orders_for(classifier(attention), 2, draws=2, seed=0)
    assert sum(bool(orders(_texts(0)).any()) for orders in found.values()) > 15  # Grad-CAMs may be zero
    for name, orders in found.items():
        together = orders(_texts(0, 1, 3))
        assert len(together) == (2 if name == "Random" else 1)
        for place, i in enumerate((0, 1, 3)):
            alone = orders(_texts(i))[:, 0]
            assert_close(together[:, place, : alone.shape[1]], alone, rtol=0, atol=1e-10, msg=name)
            assert not together[:, place, alone.shape[1] :].any(), name


@torch.no_grad()
def test_leave_one_out_by_loops() -> None:
    model, texts = classifier(), _texts(0, 1, 3)
    found = leave_one_out(model, texts, 3)
    for i, n in enumerate(texts.lengths.tolist()):
        words = texts.ids[i, :n].tolist()

        def probability(text: list[int], i: int = i) -> float:
            return float(model(torch.tensor([text or [0]]))[0].softmax(0)[texts.classes[i]])

        expected = [probability(words) - probability(words[:k] + words[k + 1 :]) for k in range(n)]
        assert found[i].tolist() == pytest.approx(expected + [0.0] * (texts.ids.shape[1] - n), abs=1e-12)


@torch.no_grad()
def test_integrated_gradients_sum_to_the_difference_from_empty_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captum_astro.evaluation.words.orders._STEPS", 128)  # near zero the norms change fast
    model, texts = classifier(), _texts(0, 3)
    [found] = orders_for(model, 8, draws=1, seed=0)[0]["IntegratedGradients"](texts)
    whole = model(texts.ids)
    handle = model.embed.register_forward_hook(lambda module, given, output: torch.zeros_like(output))
    difference = (whole - model(texts.ids)).gather(1, texts.classes[:, None])[:, 0]
    handle.remove()
    assert found.sum(1).tolist() == pytest.approx(difference.tolist(), rel=1e-4)


def test_random_orders_differ_by_draw_review_and_seed() -> None:
    texts = _texts(0, 8)
    drawn = [orders_for(classifier(), 8, draws=2, seed=seed)[0]["Random"](texts) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    rows = [tuple(one.tolist()) for draw in (*drawn[0], *drawn[2]) for one in draw]
    assert len({*rows}) == len(rows)


@torch.no_grad()
def test_answers_do_not_depend_on_the_batch() -> None:
    model, texts = classifier(), _texts(0, 1, 2, 3).ids.reshape(2, 2, 7)
    texts[1, 1] = 0  # no token
    found = answers(model, texts, batch_size=3)
    for place, text in zip([(0, 0), (0, 1), (1, 0), (1, 1)], texts.flatten(0, 1), strict=True):
        alone = model((text[text != 0] if text.any() else text[:1])[None])[0]
        assert_close(found[place], alone, rtol=0, atol=1e-12)
