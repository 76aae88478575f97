from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import pytest

from captum_astro.evaluation.analysis import comparisons, ranking
from captum_astro.evaluation.report.verdict import verdict


def _rows(values: dict[str, dict[str, Sequence[float]]]) -> pd.DataFrame:
    """A row for each metric, method and sample."""
    found = [
        (sample, "vit", method, metric, "predicted", value)
        for metric, methods in values.items()
        for method, own in methods.items()
        for sample, value in enumerate(own)
    ]
    return pd.DataFrame(found, columns=["sample", "model", "method", "metric", "explained", "value"])


def _verdict(rows: pd.DataFrame):
    return verdict(ranking(rows, 50), comparisons(rows, None, 50))


@pytest.mark.parametrize(
    ("values", "answer", "figures"),
    [
        (  # six pairs of one sign: p = 2 / 64
            {"SaCo": {"A": [0.5] * 6, "B": [0.25] * 6}},
            "A wins, for certain: it is the best by SaCo.",
            ["Mean rank of 2 methods over 1 score on 6 images: A 1.0, B 2.0.", "Certain: A by SaCo, 0.250 ahead of B."],
        ),
        (  # five: p = 2 / 32
            {"SaCo": {"A": [0.5] * 5, "B": [0.25] * 5}},
            "A is ahead, but it is not certain that it wins: it is the best by SaCo, by none for certain.",
            [
                "Mean rank of 2 methods over 1 score on 5 images: A 1.0, B 2.0.",
                "By 1 score it is not certain which method is the best.",
            ],
        ),
        (  # six again, but of two comparisons: p = 2 / 64 * 2
            {"SaCo": {"A": [0.5] * 6, "B": [0.25] * 6, "C": [0.125] * 6}},
            "A is ahead, but it is not certain that it wins: it is the best by SaCo, by none for certain.",
            [
                "Mean rank of 3 methods over 1 score on 6 images: A 1.0, B 2.0, C 3.0.",
                "By 1 score it is not certain which method is the best.",
            ],
        ),
        (  # lower is better by LOdds, and percent are points
            {
                "LOdds": {"A": [-3.0] * 6, "B": [-1.0] * 6, "C": [0.0] * 5},
                "energy inside": {"A": [0.5] * 8, "B": [0.25] * 8},
                "SaCo": {"A": [0.5, 0.0] * 3, "B": [0.3, 0.25] * 3},
            },
            "A is ahead, but not by every score: it is the best by 2 of 3 scores, for certain by 1.",
            [
                "Mean rank of 3 methods over 3 scores on 8 images: A 1.3, B 1.7, C 3.0.",
                "Certain: A by energy inside, 25.0 points ahead of B.",
                "By the other 2 scores it is not certain which method is the best.",
            ],
        ),
        (
            {"SaCo": {"A": [0.5] * 6, "B": [0.25] * 6}, "mAP": {"A": [0.25] * 6, "B": [0.5] * 6}},
            "No method wins: A and B have the same mean rank.",
            [
                "Mean rank of 2 methods over 2 scores on 6 images: A 1.5, B 1.5.",
                "Certain: B by mAP, 25.0 points ahead of A; A by SaCo, 0.250 ahead of B.",
            ],
        ),
        (
            {
                "SaCo": {"A": [0.5] * 3, "B": [0.25] * 3, "C": [0.125] * 3},
                "mAP": {"A": [0.1] * 3, "B": [0.25] * 3, "C": [0.5] * 3},
                "Dice": {"A": [0.1] * 3, "B": [0.25] * 3, "C": [0.05] * 3, "D": [0.3] * 3},
            },
            "B has the best mean rank, but is the best by none of 3 scores: no win is certain.",
            [
                "Mean rank of 4 methods over 3 scores on 3 images: B 2.0, A 2.3, C 2.7.",
                "By 3 scores it is not certain which method is the best.",
            ],
        ),
    ],
)
def test_who_wins_and_whether_it_is_certain(values, answer: str, figures: list[str]) -> None:
    found = _verdict(_rows(values))
    assert found.answer == answer
    assert found.figures == figures


def test_a_lead_names_the_method_that_may_be_as_good() -> None:
    # B is behind by less, but always; C by more, and not always
    a = [0.5 + 0.01 * i for i in range(12)]
    b, c = [v - 0.01 for v in a], [v - (0.3 if i % 2 else -0.2) for i, v in enumerate(a)]
    rows = _rows({"SaCo": {"A": a, "B": b, "C": c}})
    [lead] = _verdict(rows).leads
    assert (lead.best, lead.rival, lead.gap, lead.certain) == ("A", "C", "0.050", False)
    assert lead.p.startswith("p = 0.")


def test_classes_are_named_where_their_scores_differ() -> None:
    own = _rows({"SaCo": {"A": [0.5] * 6, "B": [0.25] * 6}, "mAP": {"A": [0.5] * 6, "B": [0.25] * 6}})
    other = own.assign(explained="true", value=own["value"].where(own["metric"] == "SaCo", own["value"] / 2))
    scores = [lead.score for lead in _verdict(pd.concat([own, other])).leads]
    assert scores == ["mAP (predicted class)", "mAP (true class)", "SaCo"]


def test_scores_of_both_classes_count_even_if_their_ranks_are_equal() -> None:
    own = _rows({"SaCo": {"A": [0.5] * 6, "B": [0.25] * 6}, "mAP": {"A": [0.25] * 6, "B": [0.5] * 6}})
    other = own[own["metric"] == "SaCo"].assign(explained="true", value=[0.9] * 6 + [0.1] * 6)
    said = _verdict(pd.concat([own, other])).figures[0]
    assert said == "Mean rank of 2 methods over 3 scores on 6 images: A 1.3, B 1.7."


def test_one_method_is_not_compared() -> None:
    assert _verdict(_rows({"SaCo": {"A": [0.5] * 6}})) is None
