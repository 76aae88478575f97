"""Comparisons in a folder: rows, resuming, and what is recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from captum_astro import VTranM
from captum_astro.evaluation.evidence import write_words
from captum_astro.evaluation.run.results import read_run
from captum_astro.evaluation.words import WordsConfig, run_words
from captum_astro.evaluation.words import run as module
from captum_astro.evaluation.words.orders import orders_for
from captum_astro.evaluation.words.scoring import rows
from captum_astro.evaluation.words.specification import spread
from captum_astro.metrics import comprehensiveness, shortened, token_removals
from captum_astro.metrics.registry import text_metrics
from tests.evaluation.words.making import LABELS, TEXTS, classifier, encode, subject
from tests.evaluation.words.test_orders import NAMES, REFUSED

CONFIG = WordsConfig(reviews=11, draws=2, steps=4, batch_size=32)
CHOSEN = [1, 5, 9]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All methods of two models."""
    out = tmp_path_factory.mktemp("words")
    run_words([subject(), subject("softmax", "softmax")], TEXTS, LABELS, replace(CONFIG, reviews=3), out)
    return out


def test_every_model_review_method_and_metric_has_a_row(folder: Path) -> None:
    found = read_run(folder)
    assert found.finished
    assert sorted({*found.rows["sample"]}) == CHOSEN
    of_words = found.rows[found.rows["method"] != "-"]
    assert len(of_words) == 3 * 4 * sum(map(len, NAMES.values()))
    assert of_words["error"].isna().all()
    assert of_words["value"].notna().all()
    assert {*of_words["metric"]} == {*text_metrics()}
    assert {*of_words["curve"].map(len)} == {0, 5}
    assert found.config["models"]["astro"]["options"] == {"attention": "astromorphic"}
    assert found.config["samples"]["count"] == 3
    assert found.config["versions"]["torch"] == torch.__version__


@torch.no_grad()
def test_a_row_is_what_the_parts_give(folder: Path) -> None:
    table = read_run(folder).rows.set_index(["model", "sample", "method", "metric"])["value"]
    model = subject().model
    for i in CHOSEN:
        ids = encode([TEXTS[i]])[0][None]
        logits = model(ids)
        predicted = logits.argmax(1)
        with torch.enable_grad():
            attributions = VTranM(model).attribute(ids, target=predicted)
        removed = token_removals(attributions, torch.tensor([ids.shape[1]]))["without_logits"]
        answered = torch.stack([model(text[None, : max(1, int((text != 0).sum()))])[0]
                                for text in shortened(ids, removed)[0]])  # fmt: skip
        value = float(comprehensiveness(answered[None], predicted))
        assert table["astro", i, "VTranM", "comprehensiveness"] == pytest.approx(value, abs=1e-12)
        assert table["astro", i, "-", "accuracy"] == float(int(predicted) == LABELS[i])


def test_all_curves_of_a_review_begin_and_end_at_the_same_probabilities(folder: Path) -> None:
    found = read_run(folder).rows
    curves = found[found["curve"].map(lambda one: one is not None and len(one) > 0)]
    ends = curves.assign(first=curves["curve"].str[0], last=curves["curve"].str[-1])
    for _, own in ends.groupby(["model", "sample"]):
        assert own["first"].max() - own["first"].min() <= 1e-12
        assert own["last"].max() - own["last"].min() <= 1e-12


def test_the_scores_of_several_draws_are_averaged() -> None:
    random = orders_for(classifier(), 32, draws=2, seed=0)[0]["Random"]

    def values(orders: Callable[..., torch.Tensor]) -> list[list[float]]:
        found = rows(subject(), {"Random": orders}, spread(TEXTS, LABELS, 2), CONFIG)
        return [[row.value, *(row.curve or ())] for row in found if row.method == "Random"]

    both = values(random)
    first, second = (values(lambda texts, draw=draw: random(texts)[draw, None]) for draw in (0, 1))
    assert first != second
    for one, *draws in zip(both, first, second, strict=True):
        assert one == pytest.approx([(x + y) / 2 for x, y in zip(*draws, strict=True)], abs=1e-12)


def test_it_resumes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[list[int]] = []

    def counted(subject, orders, reviews, config):
        asked.append([review.number for review in reviews])
        return rows(subject, orders, reviews, config)

    def few(*given):
        return {"by id": lambda texts: texts.ids[None].double()}, {}

    monkeypatch.setattr(module, "rows", counted)
    monkeypatch.setattr(module, "orders_for", few)
    seen: list[tuple[int, int]] = []

    def run() -> bytes:
        run_words([subject()], TEXTS, LABELS, CONFIG, tmp_path, lambda *done: seen.append(done))
        return (tmp_path / "results.parquet").read_bytes()

    whole = run()
    assert asked == [[*range(10)], [10]]
    assert seen == [(10, 11), (11, 11)]
    assert run() == whole
    assert len(asked) == 2
    (tmp_path / "chunks" / "rows-00-000001.parquet").unlink()
    (tmp_path / "chunks" / "rows-00-000000.parquet").write_bytes(b"damaged")
    assert run() == whole
    assert asked[2:] == [[*range(10)], [10]]
    with pytest.raises(ValueError, match=r"results of another run \(samples\.digest differ\)"):
        run_words([subject()], ["k k", *TEXTS[1:]], LABELS, CONFIG, tmp_path)


def test_a_method_that_fails_has_rows_that_say_so() -> None:
    def broken(texts):
        raise RuntimeError("no such thing")

    def not_finite(texts):
        found = torch.ones(1, *texts.ids.shape)
        found[0, 0, 0] = torch.nan
        return found

    found = rows(subject(), {"broken": broken, "NaN": not_finite}, spread(TEXTS, LABELS, 2), CONFIG)
    said = pd.DataFrame(found, columns=found[0]._fields).set_index(["method", "name", "metric"])["failure"]
    assert str(said["broken", "review 2", "most first"]) == "RuntimeError: no such thing"
    assert str(said["NaN", "review 2", "most first"]) == "ValueError: the attributions hold NaN or infinite values"
    assert said["NaN", "review 8", "most first"] is None


def test_reviews_are_spread_evenly() -> None:
    assert [review.number for review in spread([*"abcdefgh"], [0] * 8, 4)] == [1, 3, 5, 7]
    assert [review.number for review in spread([*"abc"], [0, 1, 0], 100)] == [0, 1, 2]


@pytest.mark.parametrize(("subjects", "texts"), [([], TEXTS), ([subject(), subject()], TEXTS), ([subject()], [])])
def test_bad_input(tmp_path: Path, subjects: list, texts: list) -> None:
    with pytest.raises(ValueError, match="at least one model, models of different names, and at least one text"):
        run_words(subjects, texts, LABELS[: len(texts)], CONFIG, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_page(folder: Path) -> None:
    files = write_words(folder, bootstrap=50)
    assert [file.name for file in files] == ["words.md", "words.svg"]
    first = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in write_words(folder, bootstrap=50)] == first
    page = files[0].read_text()
    assert page.count("\n## ") == 3
    assert "| method | comprehensiveness ↑ | sufficiency ↓ | most first ↓ | least first ↑ | mean rank |" in page
    assert page.count("\n| Random |") == 2
    for attention in REFUSED.values():
        assert f"left out: {', '.join(attention)}." in page
    table = read_run(folder).rows
    own = table[(table["model"] == "astro") & (table["method"] == "Random") & (table["metric"] == "most first")]
    printed = f"{100 * own['value'].mean():.1f}<br>"
    assert printed in next(line for line in page.splitlines() if line.startswith("| Random |"))
    assert first[1].count(b'<g id="axes_') == 4
    with pytest.raises(ValueError, match="holds no benchmark"):
        write_words(folder / "chunks")
