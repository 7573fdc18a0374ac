"""Shared by all commands: tables, one-line errors and warnings, exit codes, flags."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table

from mnistjax.errors import ConfigError, MnistjaxError
from mnistjax.files import printable
from mnistjax.signals import Interrupted, exits_on_signals

FLAG_STYLE = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)

INTERRUPTED = 130  # The status that shells report for a program ended by Ctrl-C.


def one_line_errors(main: Callable[..., None]) -> Callable[..., None]:
    """Decorates a program to print errors and warnings of this package as one line each, on stderr.

    Args:
        main: the entry point of the program.

    Returns:
        The decorated program: a `MnistjaxError` ends it with `error: ...` and status 1, a signal n
        (SIGINT or SIGTERM) ends it with one line and status 128 + n, and warnings logged by
        mnistjax are printed as `warning: ...`. An error of the operating system, such as a full
        disk, is one line too; if nobody reads the output any more, the program ends with status 1
        and says nothing. Other exceptions are mistakes in the program and keep their traceback.
    """

    @functools.wraps(main)
    def wrapped(*args: object, **kwargs: object) -> None:
        try:
            with _one_line_warnings(), exits_on_signals(), _flushed_output():
                main(*args, **kwargs)
        except MnistjaxError as error:
            sys.exit("error: " + one_line(str(error)))
        except BrokenPipeError:  # As of `mnistjax recipes | head -1`.
            _discard_output()
            sys.exit(1)
        except OSError as error:
            _discard_output()
            sys.exit("error: " + one_line(str(error)))
        except Interrupted as interrupted:
            print(one_line(str(interrupted)), file=sys.stderr)
            sys.exit(128 + interrupted.signum)
        except KeyboardInterrupt:  # Where the signals are not handled by this package.
            print("interrupted", file=sys.stderr)
            sys.exit(INTERRUPTED)

    return wrapped


@contextlib.contextmanager
def _flushed_output() -> Iterator[None]:
    """Writes the output before the context ends, so that it cannot fail unseen."""
    if hasattr(sys.stdout, "reconfigure"):  # Not if a test has replaced it.
        # A file name that is not UTF-8, or a name in a script that the terminal lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        if sys.stdout is not None:  # As in a process that was started without one.
            sys.stdout.flush()


def _discard_output() -> None:
    """Drops what could not be written; Python would try again when it exits."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


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
        print("warning: " + one_line(record.getMessage()), file=sys.stderr)


def one_line(text: str) -> str:
    """Returns a text as one line, without codes that a terminal would obey."""
    return printable(" ".join(text.split()))


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


def check_teacher_is_given(given: Mapping[str, Any], teacher: Path | None) -> None:
    """Refuses settings that have no effect without a teacher.

    Args:
        given: the flags that were given, by name.
        teacher: the flag `--teacher`.

    Raises:
        ConfigError: there is one of them, and no teacher.
    """
    if teacher is None and not given.keys().isdisjoint({"distill_weight", "temperature"}):
        raise ConfigError("--distill-weight and --temperature need --teacher")


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
