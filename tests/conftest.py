"""Settings that every test shares: eight virtual CPU devices, strict JAX, real data if present."""

import os

# Before jax is imported: the number of devices is read once, when the backend starts.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()
os.environ["JAX_PLATFORMS"] = "cpu"
# What the user's cache holds must not affect a test.
os.environ["MNISTJAX_COMPILATION_CACHE"] = "off"
# Read when a process starts: it reaches the workers of pytest-xdist and what the tests start.
os.environ.setdefault("MALLOC_ARENA_MAX", "2")

import signal
from pathlib import Path

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_numpy_rank_promotion", "raise")

settings.register_profile("mnistjax", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("mnistjax")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Leaves out LLVM's costly passes: the programs of most tests run for milliseconds.

    Training on the real images is compiled as users have it. Processes that tests start decide for
    themselves: this setting does not reach them.
    """
    on_real_data = item.get_closest_marker("mnist") is not None
    jax.config.update("jax_disable_most_optimizations", not on_real_data)


@pytest.fixture(scope="module", autouse=True)
def _forget_compiled_programs():
    """Lets a file's compiled programs go with it; jax keeps them while the worker lives."""
    yield
    jax.clear_caches()


@pytest.fixture
def interrupts():
    """Lets processes be interrupted; tests that run in the background inherit that they are not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The folder that holds `mnist/*.gz`, from MNISTJAX_DATA_DIR; skips where it is absent."""
    value = os.environ.get("MNISTJAX_DATA_DIR")
    if not value or not Path(value, "mnist", "train-images-idx3-ubyte.gz").is_file():
        # The files are not part of the project, and tests download nothing.
        pytest.skip(f"MNISTJAX_DATA_DIR={value} holds no mnist/train-images-idx3-ubyte.gz")
    return Path(value).resolve()


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory) -> Path:
    """The directory of a run on the embedded digits; not to be changed."""
    import mnistjax

    workdir = tmp_path_factory.mktemp("runs") / "digits"
    config = mnistjax.TrainConfig(
        model="mlp", epochs=30, learning_rate=3e-3, schedule="one-cycle", shift=2
    )
    mnistjax.fit(config, mnistjax.load_dataset("digits"), workdir=workdir)
    return workdir


@pytest.fixture(scope="session")
def digits_network(digits_run):
    """The network of `digits_run`."""
    import mnistjax

    return mnistjax.load_run(digits_run)
