"""Paths and files that come from outside: checked where they enter."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from mnistjax.errors import ConfigError

# `result.json` and `config.json` have a few kilobytes.
MAX_JSON_BYTES = 1 << 20


def user_path(path: str | os.PathLike[str], what: str) -> Path:
    """Returns a path that a user gave, with `~` expanded; it need not exist.

    Args:
        path: the path.
        what: what it is the path of, for error messages.

    Raises:
        ConfigError: it is empty, names an unknown user, or the system cannot look it up, because
            it is too long, holds a null character or a folder is not readable.

    >>> user_path("runs/first", "run").as_posix()
    'runs/first'
    """
    if not os.fspath(path):
        raise ConfigError(f"expected the path of a {what}, found an empty one")
    try:
        expanded = Path(path).expanduser()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            expanded.lstat()
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigError(f"expected the path of a {what}, found {path}: {error}") from error
    return expanded


def read_json(path: Path) -> Any:
    """Reads a JSON file of at most `MAX_JSON_BYTES`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is larger, not UTF-8, not JSON or nested too deeply.
    """
    with open(path, "rb") as file:
        # No more than the file has, because `read` allocates what it is asked for.
        size = os.fstat(file.fileno()).st_size
        content = file.read(min(size, MAX_JSON_BYTES) + 1)
    if len(content) > MAX_JSON_BYTES:
        raise ValueError(f"more than {MAX_JSON_BYTES:,} bytes")
    return parse_json(content)


def parse_json(text: str | bytes) -> Any:
    """Parses JSON.

    Raises:
        ValueError: the text is not UTF-8, not JSON or nested too deeply. NaN and Infinity, which
            Python's `json` accepts, are not JSON.

    >>> parse_json('{"steps": 5}')
    {'steps': 5}
    """
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def printable(text: str) -> str:
    r"""Returns a text with escapes for what is not printable, such as the codes of a terminal.

    >>> printable("a\x1b[31m.png")
    'a\\x1b[31m.png'
    """
    return "".join(
        # A surrogate is a byte of a file name that is not UTF-8.
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
