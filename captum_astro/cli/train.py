"""``captum-astro train``: train the models of this package from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from captum_astro.cli._common import (
    SEEDS,
    Device,
    examples,
    finite_number,
    limit_option,
    option,
    out_folder,
    whole_number,
)
from captum_astro.cli._terminal import console

app = typer.Typer(
    help="Train models. A run that is started again with the same options resumes.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Data = Annotated[Path, option("Folder of the data.", metavar="FOLDER")]
Out = Annotated[Path, out_folder("Folder of the run: options, curve, weights, results.")]
Attention = Annotated[str | None, option("astromorphic or softmax.", metavar="NAME")]
Sigma = Annotated[
    str | None, option("Where sigma is applied: inside (Eq. 11), outside (Eq. 18) or none.", metavar="NAME")
]
Alpha = Annotated[float | None, finite_number("Exponent of the calcium response; 1 is the linear form.")]
Scale = Annotated[float | None, finite_number("s, which divides the memory; by default the hidden units per head.")]
Position = Annotated[bool, typer.Option(help="Whether astrocytes write positions.")]
PosEmbed = Annotated[
    str | None, option("learn (an embedding of each position is added) or none.", "--pos-embed", metavar="NAME")
]
Dim = Annotated[int | None, whole_number("Width.")]
Depth = Annotated[int | None, whole_number("Blocks.")]
Heads = Annotated[int | None, whole_number("Attention heads.")]
MlpRatio = Annotated[float | None, finite_number("Feed-forward width relative to the model's width.")]
Drop = Annotated[float | None, finite_number("Dropout.")]
Epochs = Annotated[float | None, finite_number("Passes over the training data.")]
Steps = Annotated[int | None, whole_number("Optimiser steps, instead of epochs.")]
BatchSize = Annotated[int | None, whole_number("Samples per step.", "--batch-size", "-b")]
Rate = Annotated[float | None, finite_number("Peak learning rate.")]
Seed = Annotated[
    int, whole_number("Random seed for weights, data order, augmentation and dropout.", least=0, most=SEEDS)
]
Resume = Annotated[bool, typer.Option(help="Resume the run in the folder, or replace it.")]
Every = Annotated[int, whole_number("Steps between checkpoints.")]
EvaluateEvery = Annotated[int | None, whole_number("Steps between validations, instead of an epoch.")]
Length = Annotated[int | None, whole_number("Sequence length in tokens.", least=2)]
Vocabulary = Annotated[int | None, whole_number("Size of the vocabulary to train.", least=3)]
Tokeniser = Annotated[
    Path | None, option("JSON file of an existing tokeniser, instead of training one.", metavar="FILE")
]


@app.command()
@examples(
    "train cifar10 --data cifar/ -o run -n 2000 --epochs 1",
    "train cifar10 --data cifar/ -o run --attention softmax",
)
def cifar10(
    data: Data,
    out: Out,
    attention: Attention = None,
    nonlinearity: Sigma = None,
    alpha: Alpha = None,
    scale: Scale = None,
    relative_position: Position = True,
    pos_embed: PosEmbed = None,
    dim: Dim = None,
    depth: Depth = None,
    heads: Heads = None,
    mlp_ratio: MlpRatio = None,
    patch: Annotated[int | None, whole_number("Patch size in pixels.")] = None,
    stem: Annotated[int | None, whole_number("Channels of the convolution before patching.", least=0)] = None,
    drop: Drop = None,
    drop_path: Annotated[float | None, finite_number("Stochastic depth.")] = None,
    augment: Annotated[bool, typer.Option(help="Flip and shift the images.")] = True,
    epochs: Epochs = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    lr: Rate = None,
    seed: Seed = 0,
    evaluate_every: EvaluateEvery = None,
    limit: Annotated[int | None, limit_option("Images at most, for training and for test: for a trial.")] = None,
    device: Device = "cpu",
    resume: Resume = True,
    checkpoint_every: Every = 200,
) -> None:
    """CIFAR-10, from torchvision's folder or from parquet files.

    The default model is small; the paper's is --dim 256 --depth 8 --heads 8 --mlp-ratio 4 --patch 2 --stem 64, except
    for the ratio, which the paper does not give and is our choice. The last 5,000 training images are for validation.
    """
    _train("cifar10", locals())


@app.command()
@examples(
    "train imdb --data reviews/ -o run -n 2000 --epochs 1",
    "train imdb --data reviews/ -o run --attention softmax",
)
def imdb(
    data: Data,
    out: Out,
    attention: Attention = None,
    nonlinearity: Sigma = None,
    alpha: Alpha = None,
    scale: Scale = None,
    relative_position: Position = True,
    pos_embed: PosEmbed = None,
    dim: Dim = None,
    depth: Depth = None,
    heads: Heads = None,
    mlp_ratio: MlpRatio = None,
    length: Length = None,
    vocabulary: Vocabulary = None,
    tokeniser: Tokeniser = None,
    glove: Annotated[Path | None, option("GloVe's text file, to initialise the embedding.", metavar="FILE")] = None,
    drop: Drop = None,
    epochs: Epochs = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    lr: Rate = None,
    seed: Seed = 0,
    evaluate_every: EvaluateEvery = None,
    limit: Annotated[int | None, limit_option("Reviews of each class at most: for a trial.")] = None,
    device: Device = "cpu",
    resume: Resume = True,
    checkpoint_every: Every = 200,
) -> None:
    """IMDB's reviews, from parquet files.

    Their columns are text and label. One tenth of the training reviews is for validation; the vocabulary is built from
    the others.
    """
    _train("imdb", locals())


@app.command()
@examples(
    "train wikitext2 --data wikitext-2/ -o run -n 2000 --epochs 1",
    "train wikitext2 --data wikitext-2/ -o run --tokens words",
)
def wikitext2(
    data: Data,
    out: Out,
    attention: Attention = None,
    nonlinearity: Sigma = None,
    alpha: Alpha = None,
    scale: Scale = None,
    relative_position: Position = True,
    pos_embed: PosEmbed = None,
    dim: Dim = None,
    depth: Depth = None,
    heads: Heads = None,
    mlp_ratio: MlpRatio = None,
    length: Length = None,
    causal: Annotated[
        bool, typer.Option(help="--no-causal sums over all tokens, as the paper prints it: a leak, shown as such.")
    ] = True,
    tokens: Annotated[
        str | None, option("bpe (trained byte pairs) or words (the words of the text).", metavar="NAME")
    ] = None,
    vocabulary: Vocabulary = None,
    tokeniser: Tokeniser = None,
    drop: Drop = None,
    epochs: Epochs = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    lr: Rate = None,
    seed: Seed = 0,
    evaluate_every: EvaluateEvery = None,
    limit: Annotated[int | None, limit_option("Lines of each text at most: for a trial.")] = None,
    device: Device = "cpu",
    resume: Resume = True,
    checkpoint_every: Every = 200,
) -> None:
    """A language model on WikiText-2's plain text.

    If the train file is missing, the model is trained on the valid text (the last tenth of its lines for validation)
    and scored on the test text: compare such figures only with each other.
    """
    _train("wikitext2", locals())


@app.command()
@examples(
    "train scenes -o run --steps 20",
    "train scenes -M astromorphic_scenes_tiny_patch8_64 -o run",
)
def scenes(
    out: Out = Path("scenes_vit"),
    model: Annotated[
        str | None,
        option(
            "scenes_vit_tiny_patch4_64, scenes_pit_tiny_patch4_64 or astromorphic_scenes_tiny_patch8_64.",
            "--model",
            "-M",
            metavar="NAME",
        ),
    ] = None,
    attention: Attention = None,
    nonlinearity: Sigma = None,
    alpha: Alpha = None,
    scale: Scale = None,
    relative_position: Position = True,
    pos_embed: PosEmbed = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    lr: Rate = None,
    seed: Seed = 0,
    evaluate_every: EvaluateEvery = None,
    bfloat16: Annotated[
        bool, typer.Option(help="As used for the plain model's bundled weights; very slow on CPUs without support.")
    ] = False,
    device: Device = "cpu",
    resume: Resume = True,
    checkpoint_every: Every = 200,
) -> None:
    """A model that ships with the package.

    It takes an hour or two on two cores, and 2 GB of memory.
    """
    _train("scenes", locals())


def _train(task: str, options: dict[str, Any]) -> None:
    """Options that are not given are left to the task."""
    from captum_astro.training.config import configured
    from captum_astro.training.run import WEIGHTS, train

    out: Path = options.pop("out")
    run = {name: options.pop(name) for name in ("device", "resume", "checkpoint_every")}
    given = {name: str(x) if isinstance(x, Path) else x for name, x in options.items() if x is not None}
    result = train(configured(task, given), out, console=console, **run)
    metric = next(iter(result))
    console.print("; ".join(f"{name} {_figure(name, value)}" for name, value in result.items()))
    console.print(f"test {metric} {_figure(metric, result[metric])}; weights in {out / WEIGHTS}")


def _figure(name: str, value: float) -> str:
    if name in ("accuracy",) or (name == "valid" and value <= 1):
        return f"{value:.2%}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"
