"""Exceptions for bad input, settings and files.

Each class also derives from a built-in exception (`ValueError` or `FileNotFoundError`), so callers
may catch either. The command line prints these errors as one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MnistjaxError(Exception):
    """Base class of the exceptions of this package, which invalid input or settings cause."""


class UnknownNameError(MnistjaxError, ValueError):
    """Raised for a name that does not exist; the message suggests the closest one."""

    def __init__(self, kind: str, name: str, choices: Iterable[str]) -> None:
        """Composes the message.

        Args:
            kind: the kind of thing that was named, for example "recipe".
            name: the name that was given.
            choices: the names that exist.
        """
        known = sorted(choices)
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        super().__init__(f"unknown {kind} {name!r}: {hint}known are {', '.join(known)}")


class ConfigError(MnistjaxError, ValueError):
    """Raised for an invalid setting; the message gives its name, bounds and value."""


class DataFormatError(MnistjaxError, ValueError):
    """Raised for a data file or an array that is truncated, damaged or of the wrong shape."""


class DatasetNotFoundError(MnistjaxError, FileNotFoundError):
    """Raised for a data set that is not available; the message lists the ways to get it."""


class RunError(MnistjaxError, ValueError):
    """Raised for a run directory or a weights file that cannot be used."""


class RunNotFoundError(MnistjaxError, FileNotFoundError):
    """Raised for a run directory or a weights file that does not exist."""


class NonFiniteLossError(MnistjaxError, ValueError):
    """Raised when a loss becomes NaN or infinite."""
