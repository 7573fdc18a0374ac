"""Shared by the writers: the choice of input and output, and files that are written whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from mnistjax.atomic import atomic_path
from mnistjax.errors import ConfigError, RunError
from mnistjax.files import user_path

InputDtype = Literal["uint8", "float32"]
# The name of the input, and those of the output without and with softmax.
IMAGES = "images"
LOGITS = "logits"
PROBABILITIES = "probabilities"


def check_input_dtype(input_dtype: str) -> None:
    """Checks the name of the dtype of the input.

    Raises:
        ConfigError: it is neither "uint8" nor "float32".
    """
    known = get_args(InputDtype)
    if input_dtype not in known:
        raise ConfigError(f"input_dtype must be {' or '.join(known)}, found {input_dtype!r}")


@contextlib.contextmanager
def writing_file(path: str | os.PathLike[str], kind: str) -> Iterator[tuple[Path, Path]]:
    """Replaces a file atomically.

    Args:
        path: the file.
        kind: the name of the format, for error messages.

    Yields:
        The path of the file, and the temporary path to write to.

    Raises:
        ConfigError: the path cannot be used.
        RunError: the file cannot be written.
    """
    target = user_path(path, "file")
    try:
        with atomic_path(target) as temporary:
            yield target, temporary
    except OSError as error:
        raise RunError(f"expected to write {kind} to {target}: {error}") from error
