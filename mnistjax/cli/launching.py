"""The command `launch`: starts the processes of one training on this machine, and watches them.

JAX's runtime ends a process from C++ when another one is lost, and nothing notices a process that
hangs. The program that started them does: it ends them all, and says in one line what happened.
"""

from __future__ import annotations

import collections
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

import mnistjax
from mnistjax.errors import ConfigError, RunError
from mnistjax.signals import Interrupted, defers_signals

_BEATS, _LIFELINE = "MNISTJAX_BEATS_FD", "MNISTJAX_LIFELINE_FD"
_POLL_SECONDS = 0.1
# After one process has failed, so long for others to show that they failed before it.
_SETTLE_SECONDS = 1.0
# From SIGTERM to SIGKILL: for processes that cannot go on, and for those that save a checkpoint.
_BROKEN_SECONDS, _SAVING_SECONDS = 5.0, 60.0
_KEPT_LINES = 50
_INTERRUPTED = {128 + signal.SIGINT, 128 + signal.SIGTERM}
_STEP, _END = b"s", b"e"
# What C++ writes: its log, its stack traces, and a greeting of the CPU's collectives.
_NATIVE = re.compile(r"[IWEF]\d{4} |\[Gloo\]|\*\*\* |\s+@ |PC: @ |WARNING: All log messages")
_GO_ON = "with --workdir and --resume the run goes on"


def launch_command(command: Sequence[str]) -> Callable[..., None]:
    """Returns the command that starts several processes.

    Args:
        command: the words after `--`: `train` and its flags.

    Returns:
        A function whose signature tyro turns into flags.
    """

    def launch(
        processes: Annotated[int, tyro.conf.arg(aliases=["-n"])] = 2,
        watchdog: float = 120.0,
        gpus_per_process: int = 1,
    ) -> None:
        """Train in several processes on this machine: launch -n 4 -- train FLAGS.

        Args:
            processes: Number of processes.
            watchdog: Seconds without a step, or an evaluation, after which all processes are ended.
            gpus_per_process: Number of GPUs of each process, where there are GPUs.
        """
        if os.name != "posix":
            raise ConfigError("launch needs Linux or macOS")
        if not command or command[0] != "train":
            found = " ".join(command) or "nothing"
            raise ConfigError(f"expected `launch ... -- train FLAGS`, found {found} after --")
        numbers = (("processes", processes), ("watchdog", watchdog))
        for name, number in (*numbers, ("gpus-per-process", gpus_per_process)):
            if not number > 0:
                raise ConfigError(f"--{name} must be positive, found {number}")
        flags = ["--distributed", "--coordinator", _free_address()]
        flags += ["--num-processes", str(processes)]
        with defers_signals() as received, contextlib.ExitStack() as stack:
            children = [
                stack.enter_context(_Child(number, [*command, *flags], gpus_per_process))
                for number in range(processes)
            ]
            _watch(children, watchdog, received)

    return launch


def _free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class _Child:
    """One of the processes; as a context manager, it ends with the context."""

    def __init__(self, number: int, command: Sequence[str], gpus: int) -> None:
        self.number = number
        self.last_beat: float | None = None  # None while it does not train.
        self.lines: collections.deque[str] = collections.deque(maxlen=_KEPT_LINES)
        beats, beats_end = os.pipe()
        lifeline_end, self._lifeline = os.pipe()
        environment = {
            **os.environ,
            _BEATS: str(beats_end),
            _LIFELINE: str(lifeline_end),
            # JAX ignores it on CPU.
            "JAX_LOCAL_DEVICE_IDS": ",".join(str(number * gpus + gpu) for gpu in range(gpus)),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mnistjax", *command, "--process-id", str(number)],
            stdin=subprocess.DEVNULL,
            stdout=None if number == 0 else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            pass_fds=(beats_end, lifeline_end),
            # Ctrl-C reaches the launching program alone, which tells all processes once.
            start_new_session=True,
        )
        os.close(beats_end)
        os.close(lifeline_end)
        self._readers = [
            threading.Thread(target=read, daemon=True, args=arguments)
            for read, arguments in ((self._read_beats, (beats,)), (self._read_lines, ()))
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._lifeline)
        for reader in self._readers:
            reader.join()
        if self.process.stderr:
            self.process.stderr.close()

    def _read_beats(self, beats: int) -> None:
        while content := os.read(beats, 1 << 16):
            self.last_beat = None if content.endswith(_END) else time.monotonic()
        os.close(beats)

    def _read_lines(self) -> None:
        assert self.process.stderr
        for raw in self.process.stderr:
            line = raw.decode(errors="backslashreplace").rstrip("\n")
            if _NATIVE.match(line):
                continue
            self.lines.append(line)
            if self.number == 0 and line.startswith("warning: "):
                print(line, file=sys.stderr, flush=True)

    def is_stopped(self) -> bool:
        """Returns whether a signal such as SIGSTOP has stopped it, if /proc says so."""
        with contextlib.suppress(OSError, IndexError):
            status = Path(f"/proc/{self.process.pid}/stat").read_text()
            return status.rpartition(")")[2].split()[0] in "Tt"
        return False

    def last_line(self, start: str) -> str | None:
        """Returns the last line that it wrote to stderr with this start."""
        lines = reversed(tuple(self.lines))  # A copy, because a thread adds to them.
        return next((line for line in lines if line.startswith(start)), None)

    def finish_lines(self) -> None:
        """Waits for the last lines of a process that has ended."""
        self._readers[1].join(_SETTLE_SECONDS)


def _watch(children: Sequence[_Child], watchdog: float, received: Callable[[], int | None]) -> None:
    """Waits until all processes have ended, or ends them when they cannot go on.

    Raises:
        RunError: a process failed, or no process made a step for `watchdog` seconds.
        Interrupted: a signal arrived.
    """
    # All of them, because a process that has ended is noticed only when it is asked.
    while set(codes := [child.process.poll() for child in children]) != {0}:
        if signum := received():
            _end(children, _SAVING_SECONDS)
            raise Interrupted(signum, children[0].last_line("interrupted") or "interrupted")
        # One that has failed may wait for the others before it ends.
        if any(codes) or any(child.last_line("error: ") for child in children):
            time.sleep(_SETTLE_SECONDS)
            raise _failure(children)
        beats = [child.last_beat for child in children if child.last_beat is not None]
        if beats and time.monotonic() - max(beats) > watchdog:
            stopped = [str(child.number) for child in children if child.is_stopped()]
            reason = f", and process {', '.join(stopped)} is stopped" if stopped else ""
            _end(children, _BROKEN_SECONDS)
            for child in children:
                if child.last_line("Traceback"):
                    print(*child.lines, sep="\n", file=sys.stderr)
            raise RunError(f"no step in {watchdog:g} s{reason}; {_GO_ON}")
        time.sleep(_POLL_SECONDS)


def _end(children: Sequence[_Child], patience: float) -> None:
    """Ends all processes: by SIGTERM, and after `patience` seconds by SIGKILL."""
    running = [child.process for child in children if child.process.poll() is None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + patience
    for process in running:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for child in children:
        child.finish_lines()


def _failure(children: Sequence[_Child]) -> BaseException:
    """Ends all processes after one has failed, and returns why: `RunError` or `Interrupted`."""
    codes = [child.process.poll() for child in children]
    signaled = [code - 128 for code in codes if code in _INTERRUPTED]
    if signaled and set(codes) <= {None, 0, *_INTERRUPTED}:
        _end(children, _SAVING_SECONDS)
        saved = children[0].last_line("interrupted") or "interrupted"
        return Interrupted(signaled[0], saved)
    _end(children, _BROKEN_SECONDS)
    return RunError(_explain(children, codes))


def _explain(children: Sequence[_Child], codes: Sequence[int | None]) -> str:
    """Returns why processes failed: the cause, rather than what it did to the others."""
    ended = [(child, code) for child, code in zip(children, codes, strict=True) if code]
    signaled = {-code: child.number for child, code in ended if code < 0}
    # JAX aborts a process that has lost another one.
    aborted = signaled.pop(signal.SIGABRT, None)
    if signaled:
        signum, number = next(iter(signaled.items()))
        return f"process {number} was ended by {signal.Signals(signum).name}; {_GO_ON}"
    errors = [error for child in children if (error := child.last_line("error: "))]
    if errors:
        # Those that lost another process say less than the one that knows why.
        return min(errors, key=lambda error: "process" in error).removeprefix("error: ")
    if aborted is not None:
        return f"process {aborted} was ended by SIGABRT; {_GO_ON}"
    # No error of ours: all of what it wrote, such as a traceback.
    child, code = ended[0]
    print(*child.lines, sep="\n", file=sys.stderr)
    return f"process {child.number} ended with status {code}"


class Heartbeat(mnistjax.Callback):
    """Reports the steps of this process to the program that launched it, and ends with it."""

    in_every_process = True

    def __init__(self, beats: int, lifeline: int) -> None:
        """Takes the two ends of pipes that the launching program has opened.

        Args:
            beats: file descriptor to write to.
            lifeline: file descriptor that reaches its end when the launching program ends.
        """
        self._beats = beats
        os.set_blocking(beats, False)
        threading.Thread(target=_follow, args=(lifeline,), daemon=True).start()

    def on_compiled(self, seconds: float) -> None:
        """Reports that training begins."""
        self._report(_STEP)

    def on_start(self, run: Mapping[str, Any]) -> None:
        """Notes the number of steps."""
        self._last = run["steps"]

    def on_steps(self, step: int) -> None:
        """Reports a step; none follows the last one, only testing and writing."""
        self._report(_STEP if step < self._last else _END)

    def on_epoch(self, row: Mapping[str, Any]) -> None:
        """Reports that an epoch is evaluated."""
        self.on_steps(row["step"])

    def on_end(self, fitted: mnistjax.FitResult) -> None:
        """Reports that no step will follow, as after early stopping."""
        self._report(_END)

    def _report(self, what: bytes) -> None:
        with contextlib.suppress(BlockingIOError):  # Enough is unread.
            os.write(self._beats, what)


def _follow(lifeline: int) -> None:
    """Waits until the launching program has ended, then ends this process as it would have."""
    os.read(lifeline, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def heartbeat() -> list[mnistjax.Callback]:
    """Returns the callback of a process that `launch` has started; none in other processes."""
    try:
        return [Heartbeat(int(os.environ[_BEATS]), int(os.environ[_LIFELINE]))]
    except (KeyError, ValueError):
        return []
