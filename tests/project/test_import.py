"""Importing the package is light: nothing heavy is loaded, and no device is touched."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = (
    "tensorflow",
    "tensorflow_datasets",
    "matplotlib",
    "PIL",
    "sklearn",
    "tyro",  # but not rich, which flax imports
    "safetensors",
    "requests",
    "pandas",
)


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def loaded():
    done = run("import sys, mnistjax; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return set(done.stdout.split())


def test_import_loads_nothing_heavy(loaded):
    assert "jax" in loaded
    assert not loaded & set(HEAVY)


def test_the_command_line_loads_no_data_library_before_it_is_needed():
    done = run("import sys, mnistjax.cli; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    assert "tyro" in done.stdout.split()
    assert not set(done.stdout.split()) & {"tensorflow", "tensorflow_datasets", "sklearn", "PIL"}


def test_import_starts_no_backend():
    """With an impossible platform whatever touches a device fails, and the import does not."""
    done = run("import mnistjax, mnistjax.cli", JAX_PLATFORMS="no_such_platform")
    assert done.returncode == 0, done.stderr
    touching = run("import mnistjax, jax; jax.devices()", JAX_PLATFORMS="no_such_platform")
    assert touching.returncode != 0
    assert "no_such_platform" in touching.stderr
