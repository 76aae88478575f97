"""Options of every command, with valid and with broken values, and random command lines of them."""

from __future__ import annotations

import random

from tests.evaluation import making

HARM = "no\x1b[31m:a:[b]\u202e"
FILES = ["{work}/missing", "{work}/" + HARM, "{work}/text.txt"]
COUNTS = ["0", "-1", "1.5", "many", "nan", "1e3", "9" * 40, "0x10", HARM]
NUMBERS = ["nan", "inf", "-inf", "-1", "much", "1e999", "1,5", HARM]
NAMES = ["nothing", ",", ",,", HARM, "all:x=1"]
DEVICES = ["meta", "cuda:99", "tpu", "cpu:7", "0", HARM]
OUT = ["{work}/text.txt", "{work}/text.txt/inside"]
METHODS = [
    "VTranM:gain=nan",
    "VTranM:gain=1:gain=2",
    "VTranM:aggregation=no",
    "VTranM:layers=99",
    "VTranM:layers=",
    "Magic",
    "VTranM:layers=0++1",
    "VTranM:output=odds",
    "TokenGradCAM:layer=nowhere",
    "ViTAGradCAM:k=-1",
    "VTranM:",
    *NAMES,
]
VITA = ["k=six", "k=-1", "k=1000000000", "alpha=nan", "beta=2", "layer=nowhere", "k=4,k=5", "tau", HARM, ","]

TINY = {"--model": ([making.NAME], ["no_such_model", "no_such\x1b[31m", "resnet18"]), "--no-pretrained": ([None], [])}
COMMON = {"--device": (["cpu"], DEVICES), "--limit": (["2"], COUNTS)}
CHECKPOINT = {"--checkpoint": ([], FILES[:2])}
TRAINING = {
    "--dim": (["8"], [*COUNTS, "9"]),
    "--heads": (["2"], [*COUNTS, "3"]),
    "--depth": (["1"], COUNTS),
    "--steps": (["1"], COUNTS),
    "--batch-size": (["4"], COUNTS),
    "--length": (["8"], [*COUNTS, "1"]),
    "--lr": (["1e-3"], [*NUMBERS, "0"]),
    "--drop": (["0.1"], [*NUMBERS, "1"]),
    "--epochs": (["1"], [*NUMBERS, "0"]),
    "--mlp-ratio": (["1"], [*NUMBERS, "0"]),
    "--alpha": (["0.5", "1"], NUMBERS),
    "--scale": (["8"], [*NUMBERS, "0"]),
    "--seed": (["3"], COUNTS),
    "--attention": (["softmax"], NAMES),
    "--nonlinearity": (["outside"], NAMES),
    "--pos-embed": (["none"], NAMES),
    "--evaluate-every": (["1"], COUNTS),
    "--device": (["cpu"], DEVICES),
    "--vocabulary": (["300"], [*COUNTS, "2"]),
    "--tokeniser": ([], FILES),
    "--checkpoint-every": (["1"], COUNTS),
}
COMMANDS: dict[str, dict[str, tuple[list[str | None], list[str]]]] = {
    "explain": {
        "": (["{work}/image.png"], [*FILES, "{work}/empty"]),
        **TINY,
        "--out": (["{out}"], OUT),
        **CHECKPOINT,
        "--method": (["VTranM", "rawattention,LRP", "VTranM:output=logit", "TokenTM"], METHODS),
        "--classes": (["10"], COUNTS),
        "--class-names": ([], FILES),
        "-n": (["1"], COUNTS),
        "--device": (["cpu"], DEVICES),
        "--target": (["top1", "3", "9"], ["10", "-1", "cat", "\u00b2", "1.0", HARM]),
        "--vita": (["k=4", "k=4,tau=2"], VITA),
        "--crop": (["center", "squash", "none"], ["timm", HARM]),
        "--format": (["pdf", "svg"], ["jpg", HARM]),
    },
    "bench": {
        "--models": ([making.NAME], [*NAMES, f"vita:{making.NAME}:k=-1", f"{making.NAME},{making.NAME}", "vita:"]),
        "--no-pretrained": ([None], []),
        "--data": (["scenes"], ["movies", "scenes:x", "folder:{work}/missing", "imagenet:{work}/empty", ":", HARM]),
        "--out": (["{out}"], OUT),
        "--methods": (["Random", "VTranM,Random"], METHODS),
        **COMMON,
        **CHECKPOINT,
        "--metrics": (["saco", "accuracy"], NAMES),
        "--classes": (["10"], COUNTS),
        "--explained": (["both"], NAMES),
        "--steps": (["3"], [*COUNTS, "1"]),
        "--chunk-size": (["1"], COUNTS),
        "--examples": (["0"], COUNTS[1:]),
        "--batch-size": (["2"], COUNTS),
        "--crop": (["timm"], NAMES),
        "--amp": (["none"], NAMES),
        "--seed": (["3"], COUNTS[1:]),
        "--preset": ([], ["vtranm-table1", "vtranm-table2", *NAMES]),
        "--part": ([], ["x", HARM]),
        "--data-root": ([], FILES),
    },
    "report": {
        "": ([], [*FILES, "{work}/empty"]),
        "--out": (["{out}.html"], OUT),
        "--export": (["hub"], NAMES),
        "--against": (["VTranM"], NAMES),
    },
    "evidence": {
        "": ([], [*FILES, "{work}/empty"]),
        "--out": (["{out}.md"], ["{out}.txt", "{work}/text.txt/inside.md"]),
        "--title": (["On boxes"], []),
        "--note": (["Rounded.", HARM], []),
    },
    "sweep": {
        "": (["test_vit"], ["no_such_model", HARM]),
        "--out": (["{out}.json"], ["{work}/text.txt", "{work}"]),
        "--seconds": (["300"], COUNTS),
        "--limit": (["1"], COUNTS),
    },
    "check": {
        "": ([making.NAME], ["no_such_model", "resnet18", "no\x1b[31m"]),
        **CHECKPOINT,
        "--methods": (["none", "RawAttention"], NAMES),
        "--classes": (["3"], COUNTS),
        "--out": ([], OUT),
    },
    "parts": {
        "": ([], [*FILES, "{work}/empty"]),
        "--out": (["{out}"], OUT),
        "--data": ([], FILES),
        "--limit": (["4"], COUNTS),
    },
    "words": {
        "": ([], [*FILES, "{work}/empty"]),
        "--out": (["{out}"], OUT),
        "--data": ([], FILES),
        "--limit": (["2"], COUNTS),
        "--draws": (["2"], COUNTS),
        "--batch-size": (["4"], COUNTS),
        "--device": (["cpu"], DEVICES),
        "--seed": (["3"], NUMBERS),
    },
    "methods": {"--help": ([None], [])},
    "demo": {
        "--out": ([], ["{work}/noext", "{work}/a.txt", "{work}/missing/a.png", "{work}", HARM]),
        "--scenes": (["2"], [*COUNTS, "10001"]),
    },
    "vita search": {
        "--data": (["scenes"], ["clickme", "boxes:{work}/missing", HARM]),
        "--out": (["{out}"], OUT),
        **TINY,
        **COMMON,
        "--k": (["4"], [*COUNTS, ","]),
        "--tau": (["2"], [*COUNTS, ","]),
        "--phi": (["0"], [*NUMBERS, ","]),
        "--alpha": (["1.5"], [*NUMBERS, "0.5"]),
        "--beta": (["0.05"], [*NUMBERS, "2"]),
        "--layer": ([], ["nowhere", HARM]),
        "--metrics": (["dice"], NAMES),
        "--batch-size": (["2"], COUNTS),
        "--rows": (["4"], COUNTS),
        **CHECKPOINT,
    },
    "vita evaluate": {
        "--data": (["scenes"], ["clickme:{work}/missing", "imagenet:x"]),
        "--out": (["{out}"], OUT),
        **TINY,
        **COMMON,
        "--methods": (["VTranM", "RawAttention"], METHODS),
        "--metrics": (["dice"], NAMES),
        "--vita": (["k=4"], VITA),
        "--explained": (["label"], NAMES),
        "--batch-size": (["2"], COUNTS),
        **CHECKPOINT,
    },
    "vita report": {
        "": ([], [*FILES, "{work}/empty"]),
        "--out": (["{out}.md"], ["{out}.txt", "{work}/text.txt/inside.md"]),
        "--title": (["On birds"], []),
        "--note": (["Rounded.", HARM], []),
    },
    "train imdb": {
        "--data": (["{work}"], FILES),
        "--out": (["{out}"], OUT),
        **TRAINING,
        "--glove": ([], FILES),
        "--limit": (["4"], COUNTS),
    },
    "train wikitext2": {
        "--data": (["{work}"], FILES),
        "--out": (["{out}"], OUT),
        **TRAINING,
        "--tokens": (["bpe"], NAMES),
        "--limit": (["40"], COUNTS),
    },
    "train cifar10": {
        "--data": ([], [*FILES, "{work}"]),
        "--out": (["{out}"], OUT),
        "--patch": (["4"], [*COUNTS, "5"]),
        "--stem": (["0"], COUNTS[1:]),
        "--drop-path": (["0.1"], [*NUMBERS, "1"]),
        "--dim": (["8"], COUNTS),
    },
    "train scenes": {
        "--out": (["{out}"], OUT),
        "--model": ([], ["vit", HARM]),
        "--alpha": ([], ["1", *NUMBERS]),
        "--steps": ([], COUNTS),
    },
    "ablate": {
        "": (["imdb"], ["mnist", HARM]),
        "--data": (["{work}"], FILES),
        "--out": (["{out}"], OUT),
        "--variants": (["full", "full,softmax", "a:scale=8"], [*NAMES, "a", "a:scale=0", "a:size=3", ":", "a:alpha"]),
        "--jobs": (["1"], [*COUNTS, "1001"]),
        "--alphas": (["0.5"], [*NUMBERS, ","]),
        "--seeds": (["1"], [*COUNTS, "1001"]),
        "--reach": (["0.5"], ["nan", "inf", "x"]),
        "--device": (["cpu"], DEVICES),
        "--set": (["steps=1"], ["dim", "dim=x", "dim=0", "=3", "dim=", "smoothing=nan", "size=3", "keep=x", HARM]),
    },
}
SMALL = {
    "train imdb": ("--dim", "--heads", "--depth", "--steps", "--length", "--batch-size", "--vocabulary"),
    "train wikitext2": ("--dim", "--heads", "--depth", "--steps", "--length", "--batch-size", "--vocabulary"),
    "bench": ("--limit", "--steps", "--metrics", "--methods"),
    "vita search": ("--limit", "--k", "--tau", "--phi", "--alpha", "--beta"),
    "vita evaluate": ("--limit", "--methods"),
    "ablate": ("--variants", "--seeds", "--set"),
    "demo": ("--scenes", "--out"),
    "check": ("--methods",),
}
"""Options that are always given, so that a valid line takes no long time."""


def line(draw: random.Random) -> list[str]:
    """A command with random options, of which most lines have a broken one."""
    command = draw.choice(list(COMMANDS))
    broken = draw.choice([0.0, 0.2, 0.5, 0.5]) if command != "ablate" else 0.5
    words = command.split()
    for name, (valid, invalid) in COMMANDS[command].items():
        must = name in ("", "--data", "--out", "--models", "--model", "--no-pretrained", *SMALL.get(command, ()))
        if not must and draw.random() > 0.3:
            continue
        often = broken / 4 if name == "--out" else broken  # it is refused before the others are seen
        value = draw.choice(invalid if not valid or (invalid and draw.random() < often) else valid)
        if draw.random() < 0.005:
            value = ""
        words += [word for word in (name or None, value) if word is not None]
    if draw.random() < 0.03:
        words.append(draw.choice(["--nothing", "--limit", "extra", HARM]))
    return words
