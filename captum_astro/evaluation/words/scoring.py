"""The rows of some reviews: every order of their tokens, and every metric of each order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from captum_astro.evaluation.run.failures import Failure
from captum_astro.evaluation.run.rows import Row
from captum_astro.evaluation.words.answers import answers
from captum_astro.evaluation.words.orders import Orders, Texts
from captum_astro.evaluation.words.specification import Review, TextModel, WordsConfig
from captum_astro.metrics.declaration import Given, Metric, Scores
from captum_astro.metrics.registry import text_metrics
from captum_astro.metrics.token_deletion import shortened, token_removals

NOT_FINITE = Failure("ValueError", "the attributions hold NaN or infinite values", "method")
Scored = tuple[list[float], list[list[float]]]


def rows(subject: TextModel, orders: Mapping[str, Orders], reviews: Sequence[Review], config: WordsConfig) -> list[Row]:
    """Score every order of some reviews; a method that fails has its rows with the failure.

    Args:
        subject: The model.
        orders: What orders its tokens, by name, as `captum_astro.evaluation.words.orders.orders_for` returns it.
        reviews: The reviews, for each of which the predicted class is explained.
        config: The settings.
    """
    texts, right = _read(subject, reviews, config)
    known = [(review.number, review.name, subject.name) for review in reviews]
    found = [Row(*one, "-", "accuracy", "-", float(yes)) for one, yes in zip(known, right, strict=True)]
    for method, orders_of in orders.items():
        for metric, scored in _scored(subject.model, orders_of, texts, config):
            for i, one in enumerate(known):
                row = Row(*one, method, metric, "predicted")
                if isinstance(scored, Failure):
                    found.append(row._replace(failure=scored))
                elif scored[0][i] != scored[0][i]:
                    found.append(row._replace(failure=NOT_FINITE))
                else:
                    found.append(row._replace(value=scored[0][i], curve=scored[1][i]))
    return found


def _read(subject: TextModel, reviews: Sequence[Review], config: WordsConfig) -> tuple[Texts, list[bool]]:
    """The reviews as the model reads them, and whether its answer to each is right."""
    encoded = subject.encode([review.text for review in reviews])
    ids = pad_sequence(encoded, batch_first=True).to(config.device)
    classes = answers(subject.model, ids[:, None], config.batch_size)[:, 0].argmax(-1)
    lengths = torch.tensor([len(one) for one in encoded], device=config.device)
    right = [int(seen) == review.label for seen, review in zip(classes, reviews, strict=True)]
    return Texts(ids, lengths, classes, [review.number for review in reviews]), right


def _scored(
    model: nn.Module, orders: Orders, texts: Texts, config: WordsConfig
) -> Iterator[tuple[str, Scored | Failure]]:
    """For each metric the texts' values and curves, each the mean over the draws; or why there are none."""
    try:
        attributions = orders(texts)
        finite = attributions.isfinite().all(2).all(0)
        each = [_metrics(model, one.nan_to_num(), texts, config) for one in attributions]
    except Exception as error:
        why = Failure.of(error, "method")
        yield from ((name, why) for name in text_metrics())
        return
    for name in text_metrics():
        values = torch.stack([one[name].values for one in each]).mean(0).masked_fill(~finite, torch.nan)
        curves = torch.stack([one[name].curves for one in each]).mean(0)
        yield name, (values.tolist(), curves.tolist())


def _metrics(model: nn.Module, attributions: torch.Tensor, texts: Texts, config: WordsConfig) -> dict[str, Scores]:
    removed = token_removals(attributions, texts.lengths, config.steps)
    logits = {need: answers(model, shortened(texts.ids, one), config.batch_size) for need, one in removed.items()}
    given = Given(classes=texts.classes, **logits)
    return {name: _complete(metric, given) for name, metric in text_metrics().items()}


def _complete(metric: Metric, given: Given) -> Scores:
    found = metric.compute(given)
    return found if isinstance(found, Scores) else Scores(found, found.new_zeros(len(found), 0))
