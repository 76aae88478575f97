"""IMDB: is a review positive?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from captum_astro.data.glove import fill_embedding, read_glove
from captum_astro.data.texts import LabelledTexts, read_imdb
from captum_astro.data.tokenisers import TOKENISER, encode, kept_tokeniser, learn_words, load_tokeniser
from captum_astro.models.astromorphic_text import AstromorphicTextClassifier
from captum_astro.training.batches import Texts
from captum_astro.training.options import Count, Fraction, Length, Positive, Share, Vocabulary
from captum_astro.training.scores import accuracy, answers, classification
from captum_astro.training.task import Config, Task


@dataclass(frozen=True, kw_only=True)
class Imdb(Config):
    """Options of IMDB; widths, heads, depth and length are the paper's.

    Attributes:
        length: Tokens read from each review.
        vocabulary: Vocabulary size, if the tokeniser is trained.
        tokeniser: A tokeniser's JSON file to use instead.
        glove: A file of GloVe vectors to initialise the embedding.
        smoothing: Label smoothing.
        validation: The fraction of training reviews held out, drawn once for all seeds.
        limit: Maximum number of training and test reviews of each class; for trial runs.
    """

    task: ClassVar[str] = "imdb"

    dim: Count = 128
    depth: Count = 1
    heads: Count = 4
    mlp_ratio: Positive = 2.0
    drop: Fraction = 0.3
    epochs: Positive = 4.0
    lr: Positive = 1e-3
    length: Length = 400
    vocabulary: Vocabulary = 20_000
    tokeniser: str = ""
    glove: str = ""
    smoothing: Fraction = 0.0
    validation: Share = 0.1
    limit: Count | None = None

    def build(self, folder: Path) -> nn.Module:
        """The model for the tokeniser in the folder."""
        return AstromorphicTextClassifier(
            vocabulary=load_tokeniser(folder / TOKENISER).get_vocab_size(),
            num_classes=2,
            dim=self.dim,
            num_heads=self.heads,
            depth=self.depth,
            length=self.length,
            mlp_ratio=self.mlp_ratio,
            drop_rate=self.drop,
            **self.model_options,
        )

    def prepare(self, folder: Path, device: torch.device | str) -> Task:
        """Read and split the reviews, train the tokeniser, build the model."""
        reviews = _limited(read_imdb(self.data, "train"), self.limit)
        shuffled = torch.randperm(len(reviews), generator=torch.Generator().manual_seed(0)).tolist()
        held_out = int(len(reviews) * self.validation)
        if held_out < 1 or len(reviews) - held_out < self.batch_size:
            raise ValueError(
                f"{len(reviews)} reviews, {held_out} held out: too few of either to train on batches of "
                f"{self.batch_size}. Take more reviews, or smaller batches."
            )
        valid, train = shuffled[:held_out], shuffled[held_out:]
        read = [reviews.texts[index] for index in train]
        known = kept_tokeniser(folder, self.tokeniser, lambda: learn_words(read, self.vocabulary))
        texts = encode(known, reviews.texts, self.length)
        labels = torch.tensor(reviews.labels)
        source, seen = (Texts([texts[index] for index in part], labels[part], device=device) for part in (train, valid))
        model = self.build(folder)
        assert isinstance(model, AstromorphicTextClassifier)
        if self.glove:
            fill_embedding(model.embed.weight, *read_glove(self.glove, known.get_vocab()))
        model = model.to(device)

        @cache
        def tests() -> Texts:
            others = _limited(read_imdb(self.data, "test"), self.limit)
            return Texts(encode(known, others.texts, self.length), torch.tensor(others.labels), device=device)

        return Task(
            model,
            source,
            classification(self.smoothing),
            lambda trained: accuracy(trained, seen, seen.lengths.argsort()),
            lambda tested: {"accuracy": accuracy(tested, tests(), tests().lengths.argsort())},
            lambda tested: answers(tested, tests(), tests().lengths.argsort()),
        )


def _limited(reviews: LabelledTexts, limit: int | None) -> LabelledTexts:
    if limit is None:
        return reviews
    kept = [i for label in (0, 1) for i in [i for i, x in enumerate(reviews.labels) if x == label][:limit]]
    return LabelledTexts([reviews.texts[i] for i in kept], [reviews.labels[i] for i in kept])
