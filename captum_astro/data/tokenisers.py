"""Tokenisers trained on the training texts, with the `tokenizers` library."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from captum_astro.data.files import DataError, read_whole
from captum_astro.data.texts import END_OF_LINE, UNKNOWN
from captum_astro.extras import needed
from captum_astro.storage import write_whole

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PADDING = "<pad>"  # always the id 0
TOKENISER = "tokeniser.json"


def learn_words(texts: Iterable[str], size: int = 20_000, least: int = 2) -> Tokenizer:
    """Lower-case words and punctuation, for reviews: the most frequent ones, others are ``<unk>``.

    Args:
        texts: The training texts. HTML line breaks count as spaces.
        size: Size of the vocabulary, including padding (0) and unknown (1); at least 3.
        least: Minimum number of occurrences of a word, at least 1.

    Raises:
        ValueError: If a number is too small.

    Example:
        >>> learn_words(["A fine film.<br />A fine film!"], size=10).encode("A fine day").tokens
        ['a', 'fine', '<unk>']
    """
    _check_size(size, 3)
    if least < 1:
        raise ValueError(f"least must be at least 1, not {least}.")
    library = _library()
    tokeniser: Tokenizer = library.Tokenizer(library.models.WordLevel(unk_token=UNKNOWN))
    normalise = library.normalizers
    tokeniser.normalizer = normalise.Sequence(
        [normalise.Replace(library.Regex(r"<br\s*/?>"), " "), normalise.NFKC(), normalise.Lowercase()]
    )
    tokeniser.pre_tokenizer = library.pre_tokenizers.Whitespace()
    trainer = library.trainers.WordLevelTrainer(
        vocab_size=size, min_frequency=least, special_tokens=[PADDING, UNKNOWN], show_progress=False
    )
    tokeniser.train_from_iterator(texts, trainer)
    return tokeniser


def learn_wikitext_words(text: str, size: int = 33_278) -> Tokenizer:
    r"""WikiText's own words, separated by spaces, and ``<eos>`` for the end of a line; unknown words are ``<unk>``.

    Args:
        text: The training text.
        size: Size of the vocabulary, including padding (0), unknown (1) and end (2); at least 4.

    Raises:
        ValueError: If the vocabulary is too small.

    Example:
        >>> encode_stream(learn_wikitext_words(" a b \n a c \n"), " a d \n").tolist()
        [3, 1, 2]
    """
    _check_size(size, 4)
    library = _library()
    tokeniser: Tokenizer = library.Tokenizer(library.models.WordLevel(unk_token=UNKNOWN))
    tokeniser.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    trainer = library.trainers.WordLevelTrainer(
        vocab_size=size, special_tokens=[PADDING, UNKNOWN, END_OF_LINE], show_progress=False
    )
    tokeniser.train_from_iterator(_lines(text.replace(UNKNOWN, " "), end=""), trainer)
    return tokeniser


def learn_bpe(text: str, size: int = 4096) -> Tokenizer:
    """Byte-level byte-pair encoding, which can encode every text. ``<unk>``, as printed in WikiText, is one token.

    Args:
        text: The training text.
        size: Size of the vocabulary, at least 259: the bytes, padding (0), unknown (1) and the end of a line (2).

    Raises:
        ValueError: If the vocabulary is too small.

    Example:
        >>> learn_bpe("the theme of the thesis", size=262).encode("the end").tokens
        ['the', 'Ġ', 'e', 'n', 'd']
    """
    _check_size(size, 259)
    library = _library()
    tokeniser: Tokenizer = library.Tokenizer(library.models.BPE())
    tokeniser.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokeniser.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PADDING, UNKNOWN, END_OF_LINE],
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokeniser.train_from_iterator(_lines(text.replace(UNKNOWN, " "), end=""), trainer)
    return tokeniser


def load_tokeniser(file: Path) -> Tokenizer:
    """Load a tokeniser from its JSON file.

    Raises:
        DataError: If there is no such file, or it is invalid, or its padding does not have the id 0.
    """
    library, data = _library(), read_whole(file)
    try:
        tokeniser: Tokenizer = library.Tokenizer.from_str(data.decode())
    except Exception as error:  # the library raises nothing more specific
        raise DataError(f"{file}: not a tokeniser of the tokenizers library ({str(error)[:150]}).") from error
    if tokeniser.token_to_id(PADDING) != 0:
        raise DataError(f"{file}: the tokeniser's {PADDING} must be its id 0.")
    return tokeniser


def kept_tokeniser(folder: Path, given: str, learn: Callable[[], Tokenizer]) -> Tokenizer:
    """The tokeniser of a run: the one in its folder; otherwise from a file, or trained, and then saved there.

    Args:
        folder: The folder of the run.
        given: The file; empty for none.
        learn: Trains a tokeniser.

    Raises:
        DataError: If a file contains no tokeniser.
        OSError: If the folder cannot be written.
    """
    file = folder / TOKENISER
    if not file.exists():
        known = load_tokeniser(Path(given)) if given else learn()
        write_whole(file, lambda part: known.save(str(part)))
    return load_tokeniser(file)


def encode(tokeniser: Tokenizer, texts: list[str], length: int) -> list[torch.Tensor]:
    """The first ``length`` token ids of each text, long ``(n,)``; for a text without tokens, that of ``<unk>``.

    Raises:
        ValueError: If ``length`` is less than 1.
    """
    if length < 1:
        raise ValueError(f"length must be at least 1, not {length}.")
    unknown = tokeniser.token_to_id(UNKNOWN) or 0
    return [torch.tensor(one.ids[:length] or [unknown]) for one in tokeniser.encode_batch(texts)]


def encode_stream(tokeniser: Tokenizer, text: str) -> torch.Tensor:
    """The token ids of a long text, long ``(n,)``; the end of a line is ``<eos>``."""
    return torch.tensor([token for line in tokeniser.encode_batch(_lines(text)) for token in line.ids])


def _check_size(size: int, least: int) -> None:
    if size < least:
        raise ValueError(f"This vocabulary has at least {least} tokens, not {size}.")


def _library() -> Any:
    return needed("A tokeniser", "tokenizers")


def _lines(text: str, end: str = f" {END_OF_LINE}") -> list[str]:
    """The lines, with their ends written as a word."""
    return [line.replace("\n", end) for line in re.findall(r"[^\n]*\n|[^\n]+", text)]
