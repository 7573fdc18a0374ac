"""SIGINT and SIGTERM in processes of their own: deferred by a run, at once elsewhere."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from mnistjax.signals import Interrupted, defers_signals

pytestmark = pytest.mark.usefixtures("interrupts")
SIGNALS = [signal.SIGINT, signal.SIGTERM]
DEFERRED = """
import sys, time
from mnistjax.signals import defers_signals, exits_on_signals
with {context}:
    with defers_signals() as received:
        print("ready", flush=True)
        while received() is None:
            time.sleep(0.01)
        print("noted", received(), flush=True)
        time.sleep(60)
"""
WAITING = """
import pathlib, sys, time
from mnistjax.atomic import atomic_path
from mnistjax.signals import exits_on_signals, on_exit_say
with exits_on_signals(), on_exit_say("say this"), atomic_path(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print("ready", flush=True)
    {wait}
"""


def start(code, *words):
    child = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "ready\n"
    return child


@pytest.mark.parametrize("kind", SIGNALS)
def test_the_first_signal_is_noted_and_the_second_ends_the_process_at_once(kind):
    child = start(DEFERRED.format(context="exits_on_signals()"))
    child.send_signal(kind)
    assert child.stdout.readline() == f"noted {int(kind)}\n"
    child.send_signal(kind)
    _, err = child.communicate()
    assert child.returncode == 128 + kind
    assert err == "interrupted\n"


@pytest.mark.parametrize("kind", SIGNALS)
def test_in_a_users_program_the_second_signal_acts_as_before(kind):
    child = start(DEFERRED.format(context="__import__('contextlib').nullcontext()"))
    child.send_signal(kind)
    assert child.stdout.readline() == f"noted {int(kind)}\n"
    child.send_signal(kind)
    _, err = child.communicate()
    assert child.returncode == -kind
    assert ("KeyboardInterrupt" in err) == (kind == signal.SIGINT)


# In Python, where signals are handled, and in a call of C code that does not return to it, as the
# compiler's do not.
@pytest.mark.parametrize(
    "wait", ["time.sleep(60)", "__import__('hashlib').pbkdf2_hmac('sha256', b'', b'', 10**9)"]
)
@pytest.mark.parametrize("kind", SIGNALS)
def test_elsewhere_a_signal_ends_the_process_and_leaves_no_temporary_file(kind, wait, tmp_path):
    child = start(WAITING.format(wait=wait), tmp_path / "file")
    assert len(list(tmp_path.iterdir())) == 1
    child.send_signal(kind)
    _, err = child.communicate()
    assert child.returncode == 128 + kind
    assert err == "say this\n"
    assert list(tmp_path.iterdir()) == []


def test_an_ignored_signal_stays_ignored(tmp_path):
    """As in a process that was started with nohup."""
    ignoring = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    code = ignoring + WAITING.format(wait="sys.stdin.read()")
    child = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "file"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGTERM)
    child.communicate("\n")
    assert child.returncode == 0
    assert (tmp_path / "file").read_text() == "half"


def test_an_interruption_is_a_keyboard_interrupt():
    """Notebooks and other programs treat it as Ctrl-C."""
    interrupted = Interrupted(15, "saved")
    assert isinstance(interrupted, KeyboardInterrupt)
    assert (interrupted.signum, str(interrupted)) == (15, "saved")


def test_handlers_are_restored():
    before = [signal.getsignal(signum) for signum in SIGNALS]
    with defers_signals() as received:
        signal.raise_signal(signal.SIGTERM)
        assert received() == signal.SIGTERM
    assert [signal.getsignal(signum) for signum in SIGNALS] == before
