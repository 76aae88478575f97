"""The command ``captum-astro``."""

from __future__ import annotations

import os
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any

import typer

from captum_astro.cli._common import UsageError, reject_empty
from captum_astro.cli._terminal import console, prepare_streams, say_error, show_warning
from captum_astro.cli.ablate import ablate
from captum_astro.cli.app import app as app_command
from captum_astro.cli.bench import bench
from captum_astro.cli.check import check
from captum_astro.cli.demo import demo
from captum_astro.cli.evidence import evidence
from captum_astro.cli.explain import explain
from captum_astro.cli.methods import methods
from captum_astro.cli.parts import parts
from captum_astro.cli.report import report
from captum_astro.cli.sweep import sweep
from captum_astro.cli.train import app as train_app
from captum_astro.cli.vita import app as vita_app
from captum_astro.cli.words import words
from captum_astro.extras import MissingExtraError, explained
from captum_astro.wording import EXPECTED, reason

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's tables cut what is wider than their columns
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if not asked:
        return
    try:
        console.print(f"captum-astro {version('captum-astro')}")
    except PackageNotFoundError:
        console.print("captum-astro, a source folder that is not installed")
    raise typer.Exit


app.command()(explain)
app.command()(ablate)
app.command()(parts)
app.command()(words)
app.command()(bench)
app.command()(report)
app.command()(evidence)
app.command("app")(app_command)
app.command()(check)
app.command()(sweep)
app.command()(methods)
app.command()(demo)
app.add_typer(vita_app, name="vita")
app.add_typer(train_app, name="train")


@app.callback()
def _program(
    shown: Annotated[
        bool,
        typer.Option("--version", "-V", is_eager=True, callback=_version, help="Show the version and exit."),
    ] = False,
) -> None:
    """Explain Vision Transformers from timm.

    captum-astro COMMAND --help has examples.
    """
    del shown


_LESS_MEMORY = "Choose a smaller model, smaller sizes or batches, fewer images at a time, or another --device."


def main() -> None:
    """Run the command; an expected error prints one message, without a traceback.

    The exit status is 1 for an error, and 2 for a command line that is wrong or an extra that is missing.
    """
    prepare_streams()
    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        try:
            reject_empty(sys.argv[1:])
            status = app(prog_name="captum-astro", standalone_mode=False)
        except UsageError as error:
            message = error.format_message()
            if error.ctx is not None and message == error.ctx.get_help():  # no arguments where some are needed
                console.print(message)
            elif message:  # it is empty where the help was printed instead
                say_error(f"{message.rstrip('.')}{'' if message.endswith('?') else '.'}{_more(error)}")
            sys.exit(error.exit_code)
        except EXPECTED as error:
            if os.environ.get("CAPTUM_ASTRO_TRACEBACK"):
                raise
            shown = explained(error) if isinstance(error, ImportError) else error
            say_error(shown)
            sys.exit(2 if isinstance(shown, MissingExtraError) else 1)
        except (RuntimeError, MemoryError) as error:
            if os.environ.get("CAPTUM_ASTRO_TRACEBACK") or not _lacks_memory(error):
                raise
            say_error(f"Out of memory: {reason(error)}. {_LESS_MEMORY}")
            sys.exit(1)
    sys.exit(status)


def _lacks_memory(error: BaseException) -> bool:
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(words in said for words in ("out of memory", "allocate memory"))


def _more(error: Any) -> str:
    """Where a usage error can be looked up."""
    return f" See {error.ctx.command_path} --help." if error.ctx else ""
