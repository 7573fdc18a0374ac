"""The command `mnistjax`, and functions that training programs share with it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

import mnistjax
from mnistjax.cli.compilation_cache import use_compilation_cache as use_compilation_cache
from mnistjax.cli.drawing import draw
from mnistjax.cli.exporting import export
from mnistjax.cli.launching import launch_command
from mnistjax.cli.listing import datasets, info, recipes
from mnistjax.cli.measuring import compare, evaluate
from mnistjax.cli.measuring import print_comparison as print_comparison
from mnistjax.cli.reading import predict, read
from mnistjax.cli.reporting import repeat, report
from mnistjax.cli.serving import serve
from mnistjax.cli.shell import FLAG_STYLE
from mnistjax.cli.shell import one_line_errors as one_line_errors
from mnistjax.cli.sweeping import SweepArguments, sweep_command
from mnistjax.cli.training import RunArguments as RunArguments
from mnistjax.cli.training import parse_run_arguments as parse_run_arguments
from mnistjax.cli.training import train_command


@one_line_errors
def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line.

    Args:
        arguments: the words after `mnistjax`; those of the process if None.

    Raises:
        SystemExit: the command failed, was interrupted, or printed its help.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if not words:
        words = ["--help"]
    words, launched = _split(list(words))
    if words[0] != "train":  # It has a flag.
        use_compilation_cache()
    commands: dict[str, Callable[..., Any]] = {
        "train": train_command(mnistjax.get_recipe("cnn")),
        "sweep": sweep_command(mnistjax.get_recipe("cnn")),
        "launch": launch_command(launched),
        "evaluate": evaluate,
        "compare": compare,
        "report": report,
        "draw": draw,
        "repeat": repeat,
        "export": export,
        "predict": predict,
        "read": read,
        "serve": serve,
        "info": info,
        "datasets": datasets,
        "recipes": recipes,
    }
    asked = tyro.extras.subcommand_cli_from_dict(
        commands,
        prog="mnistjax",
        description="Train small image classifiers in pure JAX.",
        args=words,
        config=FLAG_STYLE,
    )
    if isinstance(asked, RunArguments | SweepArguments):
        asked.run()


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Returns the words of the command line, and those after `--` that are for another command."""
    if words[0] != "launch" or "--" not in words:
        return words, []
    place = words.index("--")
    return words[:place], words[place + 1 :]
