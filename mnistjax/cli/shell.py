"""How every command meets its user: tables, one-line errors, exit codes."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

import tyro
from rich.console import Console
from rich.table import Table

from mnistjax.errors import MnistjaxError

FLAG_STYLE = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)

INTERRUPTED = 130  # What a shell reports for a program that Ctrl-C ended.


def one_line_errors(main: Callable[..., None]) -> Callable[..., None]:
    """Makes `main` end in one line and a non-zero status on a user's error or Ctrl-C.

    Args:
        main: the entry point of a program. Errors other than `MnistjaxError` pass: they are
            mistakes of the program, and their traceback is needed.
    """

    @functools.wraps(main)
    def wrapped(*args: object, **kwargs: object) -> None:
        try:
            main(*args, **kwargs)
        except MnistjaxError as error:
            sys.exit("error: " + " ".join(str(error).split()))
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(INTERRUPTED)

    return wrapped


def make_table(*columns: str) -> Table:
    """Returns an empty table with these column heads."""
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def show(table: Table) -> None:
    """Prints a table."""
    Console(highlight=False).print(table)
