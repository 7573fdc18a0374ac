"""What all commands share: tables, one-line errors and warnings, exit codes."""

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

INTERRUPTED = 130  # What a shell reports for a program that Ctrl-C ended.


def one_line_errors(main: Callable[..., None]) -> Callable[..., None]:
    """Makes a program report errors and warnings of this package in one line each, on stderr.

    Args:
        main: the entry point of the program.

    Returns:
        The same, but that a `MnistjaxError` ends it with `error: ...` and status 1, Ctrl-C ends it
        with status 130, and warnings logged by mnistjax appear as `warning: ...`. Other errors
        pass through: they are mistakes in the program, and their traceback is needed.
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
    """Turns errors of the system, or of a drawing library, into a `ConfigError`.

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
        numbers_from: index of the first right-aligned column; all after it are too. None means
            that every column is left-aligned.
    """
    table = Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        right = numbers_from is not None and index >= numbers_from
        table.add_column(column, overflow="fold", justify="right" if right else "left")
    return table


def show(table: Table, *, title: str = "") -> None:
    """Prints a table; if it has a title, after an empty line and the title."""
    if title:
        print(f"\n{title}")
    # Names of classes may hold brackets, which are no markup here.
    Console(highlight=False, markup=False, emoji=False).print(table)
