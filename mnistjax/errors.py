"""The errors that a user can cause, and the sentence that suggests the nearest name.

Each class is also one of Python's own (`ValueError`, `FileNotFoundError`), so a caller may catch
either. The command line prints them in one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MnistjaxError(Exception):
    """The base of every error of this package: something to mend in the input, not in the code."""


class UnknownNameError(MnistjaxError, ValueError):
    """A name that is in no table; the message suggests the nearest one."""

    def __init__(self, kind: str, name: str, choices: Iterable[str]) -> None:
        """Words the message.

        Args:
            kind: what was named, for example "recipe".
            name: the name that was given.
            choices: the names that exist.
        """
        known = sorted(choices)
        near = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        super().__init__(f"unknown {kind} {name!r}: {hint}known are {', '.join(known)}")


class ConfigError(MnistjaxError, ValueError):
    """A setting that cannot be used; the message names it, its bounds and its value."""


class DataFormatError(MnistjaxError, ValueError):
    """A data file or array that is not what it should be: truncated, damaged, of wrong shape."""


class DatasetNotFoundError(MnistjaxError, FileNotFoundError):
    """A data set that was named and cannot be had; the message lists the ways to get it."""


class RunError(MnistjaxError, ValueError):
    """A run directory or a weights file that cannot be used as asked."""


class RunNotFoundError(MnistjaxError, FileNotFoundError):
    """A run directory or a weights file that is not there."""


class NonFiniteLossError(MnistjaxError, ValueError):
    """A loss became NaN or infinite."""
