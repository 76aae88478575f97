"""``captum-astro words``: which words trained text models used, by every method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from captum_astro.cli._common import SEEDS, Device, examples, limit_option, option, out_folder, whole_number
from captum_astro.cli._scores import print_scores
from captum_astro.cli._terminal import console

if TYPE_CHECKING:
    from captum_astro.evaluation.words import TextModel
    from captum_astro.training.imdb import Imdb


@examples(
    "words runs/imdb -o words",
    "words runs/imdb runs/softmax --data reviews/ -n 500 -o words",
)
def words(
    run: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs of captum-astro train imdb.")
    ],
    out: Annotated[Path, out_folder("Folder for the results; what is finished there is not computed again.")] = Path(
        "words"
    ),
    data: Annotated[Path | None, option("Folder of the reviews, if they were moved.", metavar="FOLDER")] = None,
    limit: Annotated[int, limit_option("Test reviews at most, spread evenly over the test set.")] = 100,
    draws: Annotated[int, whole_number("Random orders of each review, as the chance level.", most=1000)] = 5,
    batch_size: Annotated[int, whole_number("Texts at a time.", "--batch-size", "-b")] = 64,
    device: Device = "cpu",
    seed: Annotated[int, whole_number("Random seed of these orders.", least=0, most=SEEDS)] = 0,
) -> None:
    """Delete the words that each method finds important, and score it.

    Every method that is defined for the model orders the tokens of the same test reviews. The scores say what the
    predicted class loses: ERASER's comprehensiveness and sufficiency, and the areas under two deletion curves.
    """
    from captum_astro.data.texts import read_imdb
    from captum_astro.evaluation.evidence import write_words
    from captum_astro.evaluation.words import WordsConfig, run_words
    from captum_astro.progress import Lines

    loaded = [_loaded(folder, name) for folder, name in zip(run, _names(run), strict=True)]
    reviews = read_imdb(data or loaded[0][0].data, "test")
    config = WordsConfig(reviews=limit, draws=draws, batch_size=batch_size, seed=seed, device=device)
    subjects = [subject for _, subject in loaded]
    run_words(subjects, reviews.texts, reviews.labels, config, out, Lines(console.print, "reviews"))
    print_scores(out)
    console.print(", ".join([f"{out}/results.parquet", *map(str, write_words(out))]))


def _names(folders: list[Path]) -> list[str]:
    """The folders' names, with those around them where names are equal, as the ``seed-0`` of two variants."""
    paths = [folder.resolve().parts for folder in folders]
    names = [path[-1] for path in paths]
    for count in range(2, max(map(len, paths))):
        if len({*names}) == len({*paths}):
            break
        names = [" ".join(path[-count:]) for path in paths]
    return names


def _loaded(folder: Path, name: str) -> tuple[Imdb, TextModel]:
    """The options and the model of a run."""
    from captum_astro.data.tokenisers import encode
    from captum_astro.evaluation.words import TextModel
    from captum_astro.storage import RECORD, read_record
    from captum_astro.training.config import read_config
    from captum_astro.training.imdb import Imdb
    from captum_astro.training.run import load_trained

    config = read_config(folder)
    if not isinstance(config, Imdb):
        raise ValueError(
            f"{folder} is a run of {config.task}; give runs of captum-astro train imdb, which classify texts."
        )
    model, tokeniser = load_trained(folder)
    if tokeniser is None:
        raise ValueError(f"{folder}: the run's tokeniser.json is missing. Give a whole folder, or train it again.")
    # as the run recorded them: a later version knows more options
    recorded = read_record(folder / RECORD)
    options = {name: value for name, value in recorded.items() if name not in ("data", "tokeniser", "glove")}
    subject = TextModel(name, model, lambda texts: encode(tokeniser, list(texts), config.length), options)
    return config, subject
