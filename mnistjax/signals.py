"""Ctrl-C (SIGINT) and SIGTERM: a run saves its progress first, everything else ends at once.

Python raises KeyboardInterrupt wherever the main thread happens to be: within an import, where the
traceback says nothing, or within a callback of C code, which drops the exception. So a command
(`exits_on_signals`) ends the process from a thread that is woken by the signal, and a run
(`defers_signals`) notes the signal and acts on it between two calls of a compiled program.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from mnistjax.atomic import remove_unfinished
from mnistjax.files import printable

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_FLUSH_SECONDS = 1.0
_INTERRUPTED = "interrupted"
_SHOW_CURSOR = b"\x1b[?25h"  # A progress bar hides it.


class Interrupted(KeyboardInterrupt):
    """Raised when a signal ends a run, after its progress is saved if it can be.

    Attributes:
        signum: number of the signal.
    """

    def __init__(self, signum: int, message: str) -> None:
        """Composes the exception.

        Args:
            signum: number of the signal.
            message: what was saved, and how to go on.
        """
        super().__init__(message)
        self.signum = signum


class _Process:
    """What this process does when a signal arrives."""

    exits = False  # Whether a thread ends the process.
    received: list[int] | None = None  # Signals that a run has deferred; None outside of a run.
    hint = _INTERRUPTED  # What is printed when the process ends.


@contextlib.contextmanager
def exits_on_signals() -> Iterator[None]:
    """Ends the process with one line on stderr and status 128 + n when a signal n arrives.

    Temporary files of `atomic_path` are removed first. Within `defers_signals`, only the second
    signal ends the process. The context does nothing outside of the main thread, and ignores
    signals that are ignored already, as in a process that was started with `nohup`.
    """
    if _Process.exits or os.name != "posix" or not _in_main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with _handlers(lambda *_: None):
        # Python's handlers wait for the main thread; this pipe is written to at once.
        before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        _Process.exits = True
        watcher = threading.Thread(target=_watch, args=(reader,), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            _Process.exits = False
            signal.set_wakeup_fd(before)
            os.close(writer)
            watcher.join()
            os.close(reader)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


@contextlib.contextmanager
def _handlers(handle: Callable[..., None]) -> Iterator[Callable[[], None]]:
    """Handles the signals that are not ignored; yields the function that restores the handlers."""
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    # None is a handler that was not set by Python, which Python cannot restore.
    changed = {n: old for n, old in before.items() if old not in (signal.SIG_IGN, None)}

    def restore() -> None:
        for signum, old in changed.items():
            signal.signal(signum, old)

    for signum in changed:
        signal.signal(signum, handle)
    try:
        yield restore
    finally:
        restore()


def _watch(reader: int) -> None:
    while byte := os.read(reader, 1):
        signum = byte[0]
        if signum not in SIGNALS:
            continue
        if _Process.received == []:
            _Process.received.append(signum)
        else:
            _exit(signum)


def _exit(signum: int) -> None:
    try:
        remove_unfinished()
        # The main thread may hold the lock of a stream, so this does not wait for long.
        flusher = threading.Thread(target=_flush, daemon=True)
        flusher.start()
        flusher.join(_FLUSH_SECONDS)
        if os.isatty(1):
            os.write(1, _SHOW_CURSOR)
        os.write(2, (printable(_Process.hint) + "\n").encode())
    finally:  # Nothing else handles signals, so nothing may prevent this.
        os._exit(128 + signum)


def _flush() -> None:
    with contextlib.suppress(Exception):  # A closed pipe must not keep the process.
        sys.stdout.flush()


@contextlib.contextmanager
def defers_signals() -> Iterator[Callable[[], int | None]]:
    """Notes the first SIGINT or SIGTERM instead of acting on it; a second one acts as before.

    Yields:
        A function that returns the number of the signal that has arrived, or None. Outside of the
        main thread, where Python handles no signals, it always returns None.
    """
    received: list[int] = []
    if _Process.exits:
        _Process.received = received
        try:
            yield lambda: received[0] if received else None
        finally:
            _Process.received = None
        return
    if not _in_main_thread():
        yield lambda: None
        return

    def note(signum: int, _: object) -> None:
        received.append(signum)
        restore()

    with _handlers(note) as restore:
        yield lambda: received[0] if received else None


@contextlib.contextmanager
def on_exit_say(hint: str) -> Iterator[str]:
    """Replaces the line that a process prints when a signal ends it.

    Args:
        hint: the line. Within another such context, the line of that one stays: it knows the whole
            command, of which a run may be a part.

    Yields:
        The line that is printed.
    """
    before = _Process.hint
    if before == _INTERRUPTED:
        _Process.hint = hint
    try:
        yield _Process.hint
    finally:
        _Process.hint = before
