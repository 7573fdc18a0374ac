"""Real processes that train one network: what they learn, and what becomes of them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import two_processes

from mnistjax import load_run
from mnistjax.errors import ConfigError, RunError
from mnistjax.runs import processes
from mnistjax.runs.directory import find_checkpoints
from mnistjax.runs.result import CLOCKS
from mnistjax.runs.sealed import flatten_named

pytestmark = pytest.mark.usefixtures("interrupts")
STEPS = "150"
TRAIN = ["train", "--dataset", "digits", "--model", "mlp", "--optimizer", "momentum"]
TRAIN += ["--learning-rate", "0.02", "--batch-size", "50", "--ema-decay", "0.9", "--no-report"]
ENVIRONMENT = {
    **os.environ,
    "PYTHONUNBUFFERED": "1",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
}


def popen(words, devices=2):
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**ENVIRONMENT, "XLA_FLAGS": flags}
    pipe = subprocess.PIPE
    return subprocess.Popen(words, env=environment, stdout=pipe, stderr=pipe, text=True)


def start(*words, devices=2):
    return popen([sys.executable, "-m", "mnistjax", *words], devices)


def launch(workdir, *words, watchdog=120):
    flags = ["launch", "-n", "2", "--watchdog", str(watchdog), "--", *TRAIN]
    flags += ["--workdir", str(workdir), "--steps", STEPS, "--devices", "all", *words]
    return start(*flags)


def finish(child):
    out, err = child.communicate(timeout=900)
    # The collectives of the CPU greet each other there, several threads at once.
    greeting = re.compile(r"\[Gloo\]|.*peer ranks|\s*\d*\s*$")
    lines = [line for line in out.splitlines(keepends=True) if not greeting.match(line)]
    return child.returncode, "".join(lines), err


def children_of(child):
    """The processes that a launcher has started, by their number."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
            words = (status.parent / "cmdline").read_bytes().split(b"\0")
        except (OSError, IndexError):
            continue
        if parent == child.pid and b"--process-id" in words:
            number = int(words[words.index(b"--process-id") + 1])
            found[number] = int(status.parent.name)
    return found


def newest(workdir):
    """The step of the newest checkpoint; -1 without one."""
    found = find_checkpoints(workdir)
    return int(found[0].stem.removeprefix("step-")) if found else -1


def wait_for_a_checkpoint(job, workdir):
    before, deadline = newest(workdir), time.monotonic() + 600
    while newest(workdir) == before:
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def content(workdir):
    trained = load_run(workdir)
    rows = [
        {name: value for name, value in row.items() if name not in CLOCKS}
        for row in trained.history
    ]
    return flatten_named(trained.variables), rows


def result(workdir):
    return json.loads((workdir / "result.json").read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A launched run that nobody disturbs."""
    workdir = tmp_path_factory.mktemp("launched") / "run"
    code, out, err = finish(launch(workdir))
    assert (code, err) == (0, "")
    return workdir, out


def test_two_processes_are_one(whole, tmp_path):
    workdir, out = whole
    alone = start(*TRAIN, "--workdir", str(tmp_path), "--steps", STEPS, "--devices", "4", devices=4)
    code, _, err = finish(alone)
    assert (code, err) == (0, "")
    (weights, rows), (expected, expected_rows) = content(workdir), content(tmp_path)
    for name, array in expected.items():
        np.testing.assert_allclose(weights[name], array, rtol=2e-5, atol=2e-5, err_msg=name)
    for row, other in zip(rows, expected_rows, strict=True):
        assert row["train_accuracy"] == other["train_accuracy"]
    for run, count in ((workdir, 2), (tmp_path, 1)):
        assert (result(run)["process_count"], result(run)["device_count"]) == (count, 4)
    # One process shows what it does.
    assert out.count("test accuracy") == out.count("compiled in") == 1


def test_two_processes_take_the_steps_of_one_device_for_every_network():
    words = [sys.executable, two_processes.__file__]
    port = str(free_port())
    children = [popen([*words, number, port]) for number in "01"]
    for code, out, err in [finish(child) for child in children]:
        assert (code, err) == (0, "")
        assert out.splitlines() == [" ".join(pair) for pair in two_processes.PAIRS]


def test_processes_that_are_ended_in_every_way_resume_to_the_same_bits(whole, tmp_path):
    workdir = tmp_path / "run"
    flags = ("--checkpoint-every", "3steps", "--resume")

    for interrupted in ("launcher", "second process"):
        job = launch(workdir, *flags)
        wait_for_a_checkpoint(job, workdir)
        pid = job.pid if interrupted == "launcher" else children_of(job)[1]
        os.kill(pid, signal.SIGTERM)
        code, _, err = finish(job)
        assert code == 128 + signal.SIGTERM
        assert re.fullmatch(r"interrupted at step \d+, which is saved: the same command .*\n", err)

    job = launch(workdir, *flags)
    wait_for_a_checkpoint(job, workdir)
    os.kill(children_of(job)[1], signal.SIGKILL)
    begin = time.monotonic()
    code, _, err = finish(job)
    assert code == 1
    assert re.fullmatch(r"error: process 1 was ended by SIGKILL; with --workdir .*\n", err)
    assert time.monotonic() - begin < 60  # 15 s, on a machine that does nothing else.

    job = launch(workdir, *flags, watchdog=8)
    wait_for_a_checkpoint(job, workdir)
    stopped = children_of(job)
    os.kill(stopped[1], signal.SIGSTOP)
    code, _, err = finish(job)
    assert code == 1
    assert re.fullmatch(r"error: no step in 8 s, and process 1 is stopped; with .*\n", err)
    assert not [pid for pid in stopped.values() if Path(f"/proc/{pid}").exists()]

    step = newest(workdir)
    assert 0 < step < int(STEPS)
    code, out, err = finish(launch(workdir, *flags))
    assert (code, err) == (0, "")
    assert f"resumed  after step {step}\n" in out
    (weights, rows), (expected, expected_rows) = content(workdir), content(whole[0])
    assert rows == expected_rows
    for name, array in expected.items():
        np.testing.assert_array_equal(weights[name], array, err_msg=name)


def test_an_error_of_all_processes_is_one_line(tmp_path):
    for words, message in (
        (["--devices", "3"], "expected at most 2 cpu devices, found devices=3; .*"),
        (["--dataset", "no-such"], "unknown dataset 'no-such': .*"),
        (["--batch-size", "0"], "batch_size must be from 1 to .*, found 0"),
    ):
        code, out, err = finish(launch(tmp_path / "run", *words))
        assert (code, out) == (1, "")
        assert re.fullmatch(f"error: {message}\n", err), err
        assert not (tmp_path / "run").exists()


def test_data_that_one_process_lacks_ends_all(tmp_path):
    (tmp_path / "empty").mkdir()
    address = f"127.0.0.1:{free_port()}"
    flags = ["--distributed", "--coordinator", address, "--num-processes", "2", "--no-report"]
    flags += ["--workdir", str(tmp_path / "run"), "--process-id"]
    children = [
        start("train", "--dataset", data, *flags, str(number))
        for number, data in enumerate(("digits", str(tmp_path / "empty")))
    ]
    (code, _, err), (other_code, _, other_err) = map(finish, children)
    assert (code, other_code) == (1, 1)
    assert err == "error: process 1 could not start, and its own message says why\n"
    assert re.fullmatch(r"error: expected a folder with four IDX files .*\n", other_err)
    assert not (tmp_path / "run").exists()


def test_an_error_of_the_first_process_ends_all(whole):
    code, _, err = finish(launch(whole[0]))
    assert code == 1
    assert re.fullmatch(r"error: expected a work directory without a run, found .*\n", err), err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["launch", "--", "evaluate"], "expected `launch ... -- train FLAGS`, found evaluate"),
        (["launch"], "found nothing after --"),
        (["launch", "--processes", "0", "--", "train"], "--processes must be positive, found 0"),
        (["launch", "--watchdog", "0", "--", "train"], "--watchdog must be positive, found 0"),
        (["train", "--process-id", "1"], "--process-id need --distributed"),
        (["train", "--devices", "some"], "--devices must be a positive integer or all"),
    ],
)
def test_words_that_do_not_fit_are_refused(words, message, capsys):
    from mnistjax.cli import main

    with pytest.raises(SystemExit) as failure:
        main(words)
    assert message in str(failure.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("localhost", 2, 0), "the coordinator as host:port, found 'localhost'"),
        (("localhost:0", 2, 0), "the coordinator as host:port, found 'localhost:0'"),
        (("localhost:99999", 2, 0), "the coordinator as host:port"),
        (("localhost:1234", 0, 0), "at least 1 process, found num_processes=0"),
        (("localhost:1234", 2, 2), "a process_id from 0 to 1, found 2"),
        (("localhost:1234", 2, -1), "a process_id from 0 to 1, found -1"),
    ],
)
def test_an_address_or_a_number_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        processes.initialize(*arguments)


CONNECT = """
import sys
from mnistjax.cli import one_line_errors
from mnistjax.runs import processes

@one_line_errors
def main():
    count, number, port = map(int, sys.argv[1:4])
    processes.initialize(f"127.0.0.1:{port}", count, number, timeout=5)

main()
"""


def connect(count, number, port, devices=2):
    return popen([sys.executable, "-c", CONNECT, str(count), str(number), str(port)], devices)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_coordinator_that_does_not_answer_is_an_error_after_a_bounded_time():
    begin = time.monotonic()
    code, _, err = finish(connect(2, 1, free_port()))
    assert code == 1
    address = r"127\.0\.0\.1:\d+"
    expected = rf"error: expected 2 processes to connect to {address}, found some missing .* 5 s\n"
    assert re.fullmatch(expected, err), err
    assert time.monotonic() - begin < 120  # JAX's own limit is five minutes.


def test_processes_that_expect_different_numbers_of_them_say_so():
    port = free_port()
    first, second = connect(2, 0, port), connect(3, 1, port)
    code, _, err = finish(second)
    first.kill()  # It would wait some minutes for the other one.
    finish(first)
    assert code == 1
    assert "error: expected num_processes=2, as in process 0, found 3\n" in err


def test_processes_with_different_numbers_of_devices_say_so():
    port = free_port()
    for child in [connect(2, 0, port, devices=1), connect(2, 1, port, devices=2)]:
        code, _, err = finish(child)
        found = "found 1 in process 0, 2 in process 1"
        assert (code, err) == (1, f"error: expected as many devices in every process, {found}\n")


def test_one_process_decides_nothing_with_others():
    assert (processes.first(3), processes.largest(4), processes.share(b"5")) == (3, 4, b"5")
    processes.check_same({"settings": "a"})
    with processes.together():
        pass
    with pytest.raises(KeyError), processes.together():
        raise KeyError


def test_processes_that_differ_are_told_apart(monkeypatch):
    """As if there were three processes, of which the last has another data set."""

    def gather(array):
        other = array.copy()
        other[1] += 1
        return np.stack([array, array, other])

    monkeypatch.setattr(processes, "_gather", gather)
    with pytest.raises(RunError, match="the same data in all processes, found others in process 2"):
        processes.check_same({"settings": "a", "data": "b"})
