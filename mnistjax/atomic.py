"""Atomic file writes: no reader sees a partly written file, even after a crash."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

# What removes the temporary files that this process is writing.
_CLEANUPS: list[Callable[[], None]] = []


def remove_unfinished() -> None:
    """Removes the temporary files of this process, which is about to end."""
    for remove in tuple(_CLEANUPS):
        with contextlib.suppress(OSError):
            remove()


@contextlib.contextmanager
def removed_on_exit(remove: Callable[[], None]) -> Iterator[None]:
    """Calls a function if a signal ends the process within the context (`exits_on_signals`).

    Args:
        remove: removes temporary files.
    """
    _CLEANUPS.append(remove)
    try:
        yield
    finally:
        _CLEANUPS.remove(remove)


def remove_leftovers(folder: Path, stems: Iterable[str]) -> None:
    """Removes temporary files that a killed process has left.

    Args:
        folder: the folder, to which no other process writes meanwhile.
        stems: patterns of the names, without suffix, of the files that were being written.
    """
    for stem in stems:
        for left in folder.glob(f".{stem}.*.tmp.*"):
            with contextlib.suppress(OSError):
                left.unlink()


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is flushed and renamed to `path`.

    The folder of `path` is created if it is missing. If the body raises, the temporary file is
    removed and `path` stays as it was.

    Args:
        path: the file to write or replace.

    Yields:
        The path to write to, in the same folder and with the same suffix as `path`.
    """
    import tempfile

    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # mkstemp gives access to the owner alone. Only its unused name is kept, so that the permissions
    # of the file that the caller creates follow the umask.
    handle, name = tempfile.mkstemp(
        dir=target.parent, prefix=f".{target.stem}.", suffix=f".tmp{target.suffix}"
    )
    os.close(handle)
    temporary = Path(name)
    temporary.unlink()
    remove = functools.partial(temporary.unlink, missing_ok=True)
    with removed_on_exit(remove):
        try:
            yield temporary
            _sync(temporary, os.O_RDWR)  # Windows syncs only what is open for writing.
            os.replace(temporary, target)
            with contextlib.suppress(OSError):  # Not every file system can sync a folder.
                _sync(target.parent, os.O_RDONLY)
        finally:
            remove()


def _sync(path: Path, flags: int) -> None:
    """Waits until a file, or the names in a folder, have reached the disk."""
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text_atomically(path: str | os.PathLike[str], text: str) -> None:
    """Writes `text` to `path` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
