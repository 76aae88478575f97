"""A benchmark as a command line, so that its record says how to run it again."""

from __future__ import annotations

import shlex

from captum_astro.evaluation.specification.config import BenchConfig

_OUT = "results"


def command_of(config: BenchConfig) -> str:
    """The command that runs a benchmark, with every option that its results depend on.

    Args:
        config: The benchmark.

    Returns:
        A line for a shell, which writes to the folder ``results``; empty if the command line cannot say it, because
        only some of the models have a checkpoint, or their numbers of classes differ.

    Example:
        >>> from captum_astro.evaluation.specification import ModelChoice, methods_of
        >>> config = BenchConfig((ModelChoice("test_vit"),), methods_of("LRP"), "folder:my pets", ("SaCo",))
        >>> command_of(config)[:72]
        "captum-astro bench --model test_vit --data 'folder:my pets' --method LRP"
    """
    files = [model.checkpoint for model in config.models if model.checkpoint is not None]
    classes = {model.classes for model in config.models}
    if len(files) not in (0, len(config.models)) or len(classes) > 1:
        return ""
    words = ["captum-astro", "bench"]
    words += _repeated("--model", [model.title for model in config.models])
    words += _repeated("--checkpoint", [str(file) for file in files])
    words += ["--data", config.data]
    words += _repeated("--method", [method.name for method in config.methods])
    words += ["--metric", ",".join(config.metrics)]
    for name, value in (("--limit", config.limit), ("--classes", classes.pop())):
        words += [] if value is None else [name, str(value)]
    words += [] if config.pretrained else ["--no-pretrained"]
    words += [] if config.use_ema else ["--no-ema"]
    for name in ("explained", "crop", "steps", "chunk_size", "examples", "batch_size", "amp", "device", "seed"):
        words += [f"--{name.replace('_', '-')}", str(getattr(config, name))]
    return shlex.join([*words, "--out", _OUT])


def _repeated(name: str, values: list[str]) -> list[str]:
    return [word for value in values for word in (name, value)]
