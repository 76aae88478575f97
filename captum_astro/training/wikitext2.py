"""WikiText-2: a language model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from torch import nn

from captum_astro.data.texts import count_words, read_wikitext
from captum_astro.data.tokenisers import (
    TOKENISER,
    encode_stream,
    kept_tokeniser,
    learn_bpe,
    learn_wikitext_words,
    load_tokeniser,
)
from captum_astro.kinds import number
from captum_astro.models.astromorphic_text import AstromorphicLanguageModel
from captum_astro.training.batches import TokenStream
from captum_astro.training.options import Count, Fraction, Length, Metric, Positive, Share, Vocabulary
from captum_astro.training.scores import language, stretches, token_losses
from captum_astro.training.task import Config, Task

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True, kw_only=True)
class WikiText2(Config):
    """Options of WikiText-2; the paper's model has ``dim=768, depth=1, heads=6, length=512``.

    If there is no training text, the model is trained on the validation text, except for its last lines.

    Attributes:
        length: Tokens per window.
        causal: Whether a token sees only itself and those before it. False, as the paper's sums are printed, lets the
            model see what it predicts.
        tokens: ``"bpe"``, trained byte pairs, which assign a probability to every text; or ``"words"``, WikiText's own,
            where words not seen in training are ``<unk>``: perplexities of the two are not comparable.
        vocabulary: Size of the vocabulary to train.
        tokeniser: A tokeniser's JSON file to use instead.
        validation: The fraction of the lines that is held out, the last ones, if there is no training text.
        limit: Maximum number of lines of each text, the first ones; for trial runs.
    """

    task: ClassVar[str] = "wikitext2"
    metric: ClassVar[Metric] = "perplexity"

    dim: Count = 128
    depth: Count = 2
    heads: Count = 4
    drop: Fraction = 0.2
    epochs: Positive = 15.0
    batch_size: Count = 16
    lr: Positive = 2e-3
    weight_decay: Annotated[float, number(least=0)] = 0.1
    length: Length = 128
    causal: bool = True
    tokens: Literal["bpe", "words"] = "bpe"
    vocabulary: Vocabulary = 4096
    tokeniser: str = ""
    validation: Share = 0.1
    limit: Count | None = None

    def build(self, folder: Path) -> nn.Module:
        """The model for the tokeniser in the folder."""
        return AstromorphicLanguageModel(
            vocabulary=load_tokeniser(folder / TOKENISER).get_vocab_size(),
            dim=self.dim,
            num_heads=self.heads,
            depth=self.depth,
            length=self.length,
            mlp_ratio=self.mlp_ratio,
            drop_rate=self.drop,
            causal=self.causal,
            **self.model_options,
        )

    def prepare(self, folder: Path, device: torch.device | str) -> Task:
        """Read the texts, train the tokeniser, build the model."""
        parts = {
            name: "".join(text.splitlines(keepends=True)[: self.limit])
            for name, text in read_wikitext(self.data).items()
        }
        if "train" in parts:
            train, valid = parts["train"], parts["valid"]
        else:
            lines = parts["valid"].splitlines(keepends=True)
            kept = len(lines) - max(1, int(len(lines) * self.validation))
            train, valid = "".join(lines[:kept]), "".join(lines[kept:])
        known = kept_tokeniser(folder, self.tokeniser, lambda: self._learnt(train))
        source = TokenStream(encode_stream(known, train), self.length, device)
        seen = encode_stream(known, valid)
        model = self.build(folder).to(device)

        def losses(tested: nn.Module) -> torch.Tensor:
            return token_losses(tested, encode_stream(known, parts["test"]), self.length, max(1, self.length // 2))

        def test(tested: nn.Module) -> dict[str, float]:
            found, words = losses(tested), count_words(parts["test"])
            return {
                "perplexity": math.exp(float(found.mean())),
                "perplexity of a word": math.exp(float(found.sum()) / words),
                "tokens": len(found),
                "words": words,
            }

        return Task(
            model,
            source,
            language,
            lambda trained: math.exp(float(token_losses(trained, seen, self.length).mean())),
            test,
            lambda tested: stretches(losses(tested), self.length),
        )

    def _learnt(self, text: str) -> Tokenizer:
        if self.tokens not in ("words", "bpe"):
            raise ValueError(f"tokens must be bpe or words, not {self.tokens!r}.")
        return (learn_bpe if self.tokens == "bpe" else learn_wikitext_words)(text, self.vocabulary)
