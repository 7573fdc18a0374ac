"""Compiled programs are kept for later processes, and what happens to them harms no run."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from mnistjax import load_run
from mnistjax.cli import compilation_cache
from mnistjax.runs.sealed import flatten_named

TRAIN = ["train", "--dataset", "digits", "--recipe", "softmax", "--steps", "20", "--no-report"]


def run(cache, workdir, *flags, **variables):
    """Trains in a new process; returns its programs, the seconds of compilation and the weights."""
    removed = {"MNISTJAX_COMPILATION_CACHE"}
    environment = {name: value for name, value in os.environ.items() if name not in removed}
    done = subprocess.run(
        [sys.executable, "-m", "mnistjax", *TRAIN, "--workdir", str(workdir), *flags],
        env={**environment, "XDG_CACHE_HOME": str(cache), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return entries(cache), flatten_named(load_run(workdir).variables)


def entries(cache):
    """The programs that a cache holds, and when each was written."""
    files = cache.glob("mnistjax/compiled/*/*-cache")
    return {file.name: file.stat().st_mtime_ns for file in files}


def assert_equal(one, other):
    for name, array in one.items():
        np.testing.assert_array_equal(other[name], array, err_msg=name)


def test_a_second_process_compiles_nothing_and_gives_the_same_bits(tmp_path):
    first, weights = run(tmp_path / "cache", tmp_path / "a")
    assert first
    second, loaded = run(tmp_path / "cache", tmp_path / "b")
    assert second == first
    assert_equal(loaded, weights)

    # Damage costs a compilation and nothing else.
    for file in (tmp_path / "cache").glob("mnistjax/compiled/*/*-cache"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    _, compiled = run(tmp_path / "cache", tmp_path / "c")
    assert_equal(compiled, weights)


@pytest.mark.parametrize(
    ("flags", "variables"),
    [
        (["--no-compilation-cache"], {}),
        ([], {"MNISTJAX_COMPILATION_CACHE": "off"}),
        ([], {"JAX_ENABLE_COMPILATION_CACHE": "false"}),
    ],
    ids=["flag", "variable", "jax"],
)
def test_it_can_be_turned_off(tmp_path, flags, variables):
    assert run(tmp_path / "cache", tmp_path / "run", *flags, **variables)[0] == {}


def test_a_folder_of_the_user_is_left_as_it_is(tmp_path):
    own = tmp_path / "own"
    found, _ = run(tmp_path / "cache", tmp_path / "run", JAX_COMPILATION_CACHE_DIR=str(own))
    assert found == {}


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "cache").write_text("not a folder")
    run(tmp_path / "cache", tmp_path / "run")


@pytest.fixture
def settings(monkeypatch, tmp_path):
    """The settings of jax that are made instead of being made."""
    made = {}
    monkeypatch.setattr(jax.config, "update", lambda name, value: made.update({name: value}))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("MNISTJAX_COMPILATION_CACHE")
    return made


def test_each_processor_has_a_folder_of_a_bounded_size(settings, monkeypatch, tmp_path):
    folders = set()
    for processor in ("avx2", "avx512"):
        monkeypatch.setattr(compilation_cache, "_processor", lambda name=processor: (name,))
        compilation_cache.use_compilation_cache()
        folders.add(settings["jax_compilation_cache_dir"])
    assert len(folders) == 2
    assert all(folder.startswith(str(tmp_path / "mnistjax" / "compiled")) for folder in folders)
    assert settings["jax_compilation_cache_max_size"] == 256 << 20


def test_a_folder_that_nobody_uses_is_removed(settings, tmp_path):
    for name, days in (("old", 31), ("young", 29)):
        folder = tmp_path / "mnistjax" / "compiled" / name
        folder.mkdir(parents=True)
        (folder / "entry").write_bytes(b"content")
        os.utime(folder, times=(time.time() - days * 24 * 3600,) * 2)
    compilation_cache.use_compilation_cache()
    left = {folder.name for folder in (tmp_path / "mnistjax" / "compiled").iterdir()}
    assert "young" in left
    assert "old" not in left
    assert len(left) == 2


def test_importing_the_package_turns_nothing_on():
    code = "import mnistjax, jax; mnistjax.fit; print(jax.config.jax_compilation_cache_dir)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "None\n"
