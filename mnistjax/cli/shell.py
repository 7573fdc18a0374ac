"""How every command meets its user: tables, one-line errors, exit codes."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from mnistjax.errors import ConfigError, MnistjaxError

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


@contextlib.contextmanager
def writing(file: Path) -> Iterator[None]:
    """Turns what the system, or a library that draws, says against a file name into one line.

    Args:
        file: what is written in the body.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        yield
    except MnistjaxError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot write {file}: {error}") from error


def make_table(*columns: str, numbers_from: int | None = None) -> Table:
    """Returns an empty table.

    Args:
        *columns: their heads.
        numbers_from: index of the first column that is flush right, as all after it; none if None.
    """
    table = Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        right = numbers_from is not None and index >= numbers_from
        table.add_column(column, overflow="fold", justify="right" if right else "left")
    return table


def show(table: Table, *, title: str = "") -> None:
    """Prints a table, after an empty line and its title if it has one."""
    if title:
        print(f"\n{title}")
    # Names of classes may hold brackets, which are no markup here.
    Console(highlight=False, markup=False, emoji=False).print(table)
