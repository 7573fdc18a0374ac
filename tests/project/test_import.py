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


# One process tells everything: each line is for one stage. The platform is impossible, so that
# whatever touches a device fails.
CODE = """
import sys
import mnistjax
print(*sys.modules)
mnistjax.load_dataset, mnistjax.fit, mnistjax.make_train_step, mnistjax.analyze
print(*sys.modules)
import mnistjax.cli
print(*sys.modules)
import jax
try:
    jax.devices()
except RuntimeError as error:
    print(" ".join(str(error).split()))
"""


@pytest.fixture(scope="module")
def printed():
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, "JAX_PLATFORMS": "no_such_platform"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout.splitlines()


def test_import_loads_nothing_at_all(printed):
    loaded = set(printed[0].split())
    assert not loaded & {*HEAVY, "jax", "numpy"}
    assert [name for name in loaded if name.startswith("mnistjax")] == ["mnistjax"]


def test_the_library_loads_nothing_heavy(printed):
    loaded = set(printed[1].split())
    assert "jax" in loaded
    assert not loaded & set(HEAVY)


def test_the_command_line_loads_no_data_library_before_it_is_needed(printed):
    loaded = set(printed[2].split())
    assert "tyro" in loaded
    assert not loaded & {"tensorflow", "tensorflow_datasets", "sklearn", "PIL"}


def test_import_starts_no_backend(printed):
    """The imports did not fail, and looking for a device does."""
    assert "no_such_platform" in printed[3]
