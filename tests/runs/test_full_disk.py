"""Disks that fill up, vanish or cannot be written to: the run says so, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from small_runs import CONFIG, Recorder, dataset

from mnistjax import CheckpointPolicy, fit, load_run
from mnistjax.errors import RunError
from mnistjax.runs.directory import find_checkpoints
from mnistjax.runs.sealed import read_sealed

CHECKPOINT = ["mnistjax-checkpoint-1"]
TRAIN = ["train", "--dataset", "digits", "--model", "softmax", "--steps", "40", "--batch-size"]
TRAIN += ["64", "--validation-fraction", "0", "--checkpoint-every", "5steps", "--no-report"]
ENVIRONMENT = {
    **os.environ,
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
}
# The file system vanishes with the process, so what it holds is copied.
ON_TMPFS = 'mount -t tmpfs -o "$1" tmpfs "$2" && shift && cd "$1" && copy=$2 && shift 2 && '
ON_TMPFS += '{ "$@"; status=$?; cp -a . "$copy"; exit $status; }'


def on_tmpfs(options, folder, copy, *words):
    """Runs a command in a small file system; returns its status, stdout and stderr."""
    folder.mkdir()
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", ON_TMPFS, "sh", options, folder, copy, *words],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def tmpfs(tmp_path_factory):
    """Skips where a user may not mount a file system: on other systems than Linux, and in some
    containers. Any other way to fill a disk would fill that of the user."""
    if shutil.which("unshare") is None:
        pytest.skip("only Linux has unshare, which mounts a file system for one process")
    place = tmp_path_factory.mktemp("probe")
    status, _, err = on_tmpfs("size=64k", place / "disk", place / "copy", "true")
    if status:
        pytest.skip(f"this container forbids to mount a file system: {err.strip()}")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The weights of a whole run."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    train(workdir)
    return load_run(workdir).variables


def train(workdir, *words):
    command = [sys.executable, "-m", "mnistjax", *TRAIN, "--workdir", str(workdir), *words]
    subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True)


# A disk for the lock alone, and one for a single checkpoint; the others with `-m full`.
@pytest.mark.parametrize(
    "size", [4, 128, *(pytest.param(size, marks=pytest.mark.full) for size in (40, 160, 220, 300))]
)
def test_a_full_disk_is_said_and_the_run_goes_on_elsewhere(size, tmpfs, undisturbed, tmp_path):
    command = [sys.executable, "-m", "mnistjax", *TRAIN, "--workdir", "run"]
    copy = tmp_path / "copy"
    status, _, err = on_tmpfs(f"size={size}k", tmp_path / "disk", copy, *command)
    lines = err.splitlines()
    assert all("No space left" in line for line in lines)
    if size < 160:
        assert status == 1
        assert lines[-1].startswith("error: expected a writable work directory")
        assert [line[:9] for line in lines[:-1]] in ([], ["warning: "])
    else:  # The results have room, if not all of the checkpoints.
        assert status == 0
        assert [line[:9] for line in lines] in ([], ["warning: "])
    workdir = copy / "run"
    assert not [path for path in copy.rglob("*") if ".tmp" in path.name]
    for file in find_checkpoints(workdir):
        read_sealed(file, CHECKPOINT)
    assert (workdir / "result.json").exists() == (status == 0)
    assert bool(find_checkpoints(workdir)) == (size > 100)
    # With room, the run goes on from what there is.
    train(workdir, "--resume")
    found = load_run(workdir).variables
    np.testing.assert_array_equal(
        found["params"]["Dense_0"]["kernel"], undisturbed["params"]["Dense_0"]["kernel"]
    )


def test_a_disk_that_cannot_be_written_to_is_one_line(tmpfs, tmp_path):
    command = [sys.executable, "-m", "mnistjax", *TRAIN, "--workdir", "run"]
    status, out, err = on_tmpfs("ro", tmp_path / "disk", tmp_path / "copy", *command)
    assert status == 1
    assert out == ""
    assert err.startswith("error: expected a writable work directory")
    assert err.count("\n") == 1


class After(Recorder):
    """Does something to the work directory after the second step."""

    def __init__(self, do):
        super().__init__()
        self.do = do

    def on_steps(self, step):
        if step == 2:
            self.do()


@pytest.mark.parametrize("harm", ["vanishes", "becomes a file", "becomes another run's"])
def test_a_work_directory_that_is_gone_is_said(harm, tmp_path, caplog):
    workdir, elsewhere = tmp_path / "run", tmp_path / "moved"

    def do():
        workdir.rename(elsewhere)
        if harm == "becomes a file":
            workdir.write_text("text")
        elif harm == "becomes another run's":
            workdir.mkdir()
            (workdir / ".lock").touch()

    policy = CheckpointPolicy(every="1step")
    with pytest.raises(RunError, match="expected a writable work directory") as caught:
        fit(CONFIG, dataset(), workdir=workdir, checkpoints=policy, callbacks=[After(do)])
    assert "\n" not in str(caught.value)
    assert len(caplog.records) == 1
    assert "training goes on" in caplog.text
    assert workdir.is_file() == (harm == "becomes a file")
    if workdir.is_dir():
        assert [path.name for path in workdir.iterdir()] == [".lock"]
    newest = find_checkpoints(elsewhere)[0]
    assert json.loads(read_sealed(newest, CHECKPOINT)[1]["progress"])["done"] == 1
    resumed = fit(CONFIG, dataset(), workdir=elsewhere, resume=True)
    np.testing.assert_array_equal(
        resumed.trained.variables["params"]["Dense_0"]["kernel"],
        fit(CONFIG, dataset()).trained.variables["params"]["Dense_0"]["kernel"],
    )


def test_a_work_directory_that_comes_back_is_used_again(tmp_path, caplog):
    workdir, elsewhere = tmp_path / "run", tmp_path / "moved"
    away = After(lambda: workdir.rename(elsewhere))

    class Back(Recorder):
        def on_steps(self, step):
            if step == 4:
                elsewhere.rename(workdir)

    policy = CheckpointPolicy(every="1step")
    fitted = fit(CONFIG, dataset(), workdir=workdir, checkpoints=policy, callbacks=[away, Back()])
    assert load_run(workdir).result == fitted.result
    assert len(caplog.records) == 1
