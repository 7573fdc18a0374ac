"""Shared by all commands: tables, one-line errors and warnings, exit codes."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from mnistjax.errors import ConfigError, MnistjaxError

FLAG_STYLE = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)

INTERRUPTED = 130  # The status that shells report for a program ended by Ctrl-C.


def one_line_errors(main: Callable[..., None]) -> Callable[..., None]:
    """Decorates a program to print errors and warnings of this package as one line each, on stderr.

    Args:
        main: the entry point of the program.

    Returns:
        The decorated program: a `MnistjaxError` ends it with `error: ...` and status 1, Ctrl-C ends
        it with status 130, and warnings logged by mnistjax are printed as `warning: ...`. Other
        exceptions are mistakes in the program and keep their traceback.
    """

    @functools.wraps(main)
    def wrapped(*args: object, **kwargs: object) -> None:
        try:
            with _one_line_warnings():
                main(*args, **kwargs)
        except MnistjaxError as error:
            sys.exit("error: " + _one_line(str(error)))
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(INTERRUPTED)

    return wrapped


@contextlib.contextmanager
def _one_line_warnings() -> Iterator[None]:
    logger, handler = logging.getLogger("mnistjax"), _WarningLines(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _WarningLines(logging.Handler):
    """Prints each record as one line on stderr, without a traceback."""

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a record."""
        print("warning: " + _one_line(record.getMessage()), file=sys.stderr)


def _one_line(text: str) -> str:
    return " ".join(text.split())


@contextlib.contextmanager
def writing(file: Path) -> Iterator[None]:
    """Converts errors of the operating system, or of a drawing library, to a `ConfigError`.

    Args:
        file: the file that the body writes.

    Raises:
        ConfigError: the file cannot be written.
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
        *columns: the column headings.
        numbers_from: index of the first of the right-aligned columns; if None, all columns are
            left-aligned.

    Returns:
        The table, to which rows can be added.
    """
    table = Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        right = numbers_from is not None and index >= numbers_from
        table.add_column(column, overflow="fold", justify="right" if right else "left")
    return table


def show(table: Table, *, title: str = "") -> None:
    """Prints a table; a title is printed above it, after an empty line."""
    if title:
        print(f"\n{title}")
    # Class names may contain brackets, which must not be taken for markup.
    Console(highlight=False, markup=False, emoji=False).print(table)
