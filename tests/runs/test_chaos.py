"""Real processes that are killed at random moments lose nothing, and say how to go on."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from mnistjax import load_run
from mnistjax.runs.directory import find_checkpoints
from mnistjax.runs.result import CLOCKS

pytestmark = pytest.mark.usefixtures("interrupts")
TRAIN = [
    "train",
    "--dataset",
    "digits",
    "--model",
    "softmax",
    "--epochs",
    "60",
    "--batch-size",
    "8",
]
TRAIN += ["--validation-fraction", "0", "--checkpoint-every", "250steps"]
# Quick to compile, with one device and one thread, so that all processes give the same bits.
ENVIRONMENT = {
    **os.environ,
    "PYTHONUNBUFFERED": "1",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
}


def start(workdir, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "mnistjax", *TRAIN, "--workdir", str(workdir), *words],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(child):
    out, err = child.communicate(timeout=900)
    return child.returncode, out, err


def content(workdir):
    """The result of a run without what clocks say, and its weights."""
    run = load_run(workdir)
    rows = [{k: v for k, v in row.items() if k not in CLOCKS} for row in run.history]
    result = {k: v for k, v in run.result.items() if k not in CLOCKS}
    return result, rows, load_file(workdir / "weights.safetensors")


def assert_equal(one, other):
    assert one[:2] == other[:2]
    assert one[2].keys() == other[2].keys()
    for name, tensor in one[2].items():
        np.testing.assert_array_equal(tensor, other[2][name])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A whole run, and the seconds that its process took."""
    workdir = tmp_path_factory.mktemp("undisturbed")
    begin = time.monotonic()
    code, _, err = finish(start(workdir, "--no-report"))
    assert (code, err) == (0, "")
    return content(workdir), time.monotonic() - begin


def newest_step(workdir):
    names = [file.stem for file in find_checkpoints(workdir)]
    return int(names[0].removeprefix("step-")) if names else 0


@pytest.mark.parametrize(
    ("kind", "kills"),
    [
        pytest.param(signal.SIGKILL, 10, id="SIGKILL"),
        pytest.param(signal.SIGTERM, 4, id="SIGTERM"),
        pytest.param(signal.SIGKILL, 100, id="SIGKILL-100", marks=pytest.mark.full),
        pytest.param(signal.SIGTERM, 50, id="SIGTERM-50", marks=pytest.mark.full),
    ],
)
def test_a_run_that_is_killed_at_random_moments_ends_in_the_same_bits(
    undisturbed, tmp_path, kind, kills
):
    expected, seconds = undisturbed
    rng = random.Random(kills)
    steps = [0]
    report = [] if kills > 10 else ["--no-report"]  # It takes longer than all else.
    for number in range(kills):
        child = start(tmp_path, "--resume", *report)
        if number % 3 == 0:
            # From the first import to the report, which follows all other files.
            time.sleep(rng.uniform(0, seconds))
        else:
            # While it trains, wherever the machine is slow today.
            while newest_step(tmp_path) <= steps[-1] and child.poll() is None:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.2))
        child.send_signal(kind)
        code, _, err = finish(child)
        assert code in {0, -kind, 128 + kind}, err
        if code == 128 + kind:
            assert re.fullmatch(r"interrupted.*\n", err)
        steps.append(newest_step(tmp_path))
        assert steps[-1] >= steps[-2]
        for name in ("config.json", "result.json"):
            if (tmp_path / name).exists():
                json.loads((tmp_path / name).read_text())
    code, out, err = finish(start(tmp_path, "--resume", *report))
    assert (code, err) == (0, "")
    assert "test accuracy" in out
    assert_equal(content(tmp_path), expected)
    assert not [path for path in tmp_path.rglob("*") if ".tmp" in path.name]
    # Some were killed while they trained, or the test would show nothing.
    assert len(set(steps)) > 2


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_progress_and_says_how_to_go_on(tmp_path, kind):
    child = start(tmp_path / "run")
    said = ""
    while "epoch " not in said:
        line = child.stdout.readline()
        assert line, child.stderr.read()
        said += line
    child.send_signal(kind)
    code, _, err = finish(child)
    assert code == 128 + kind
    step = re.fullmatch(
        r"interrupted at step (\d+), which is saved: the same command with "
        rf"--workdir {tmp_path}/run --resume goes on\n",
        err,
    )[1]
    assert newest_step(tmp_path / "run") == int(step)
    code, _, err = finish(start(tmp_path / "run"))
    assert code == 1
    assert re.fullmatch(r"error: .* a run that was interrupted .*--resume.*\n", err)
