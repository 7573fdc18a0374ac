"""Keeps compiled programs in the user's cache directory, so that later processes load them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import time
import warnings
from pathlib import Path

import jax
import jaxlib

from mnistjax.data.cache import user_cache_dir

VARIABLE = "MNISTJAX_COMPILATION_CACHE"
_MAX_BYTES = 256 << 20
_UNUSED_SECONDS = 30 * 24 * 3600


def use_compilation_cache() -> None:
    """Turns on JAX's persistent compilation cache for this process, as the command line does.

    The programs are in `compiled/` in the user's cache directory, in a folder for each processor
    and version of jax: at most 256 MiB in each, of which the programs that were not used for the
    longest time go first. A folder that was not used for 30 days is removed.

    Nothing happens if the environment variable MNISTJAX_COMPILATION_CACHE is "off", if the cache
    directory is not writable, or if the user has chosen a directory or turned JAX's cache off
    (JAX_COMPILATION_CACHE_DIR, JAX_ENABLE_COMPILATION_CACHE).
    """
    # JAX makes the attributes of its configuration at run time, where no type checker sees them.
    chosen = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if os.environ.get(VARIABLE) == "off" or chosen is not None:
        return
    folder = user_cache_dir() / "compiled" / _platform_digest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
    except OSError:
        return
    if not os.access(folder, os.W_OK):
        return
    _remove_unused(folder.parent)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", _MAX_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    # A damaged entry or a full disk costs only the compilation.
    message = "Error (reading|writing) persistent compilation cache"
    warnings.filterwarnings("ignore", message)


def _platform_digest() -> str:
    """Returns a name for the processor and the compiler: the code of another may not run here."""
    facts = (_processor(), platform.system(), jax.__version__, jaxlib.__version__)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _processor() -> tuple[str, ...]:
    """Returns the architecture and, where the system tells, the model and its instructions."""
    names = ("model name", "flags", "Features", "CPU part")
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
        return (platform.machine(), *(line for line in lines if line.startswith(names)))
    return (platform.machine(), platform.processor())


def _remove_unused(place: Path) -> None:
    with contextlib.suppress(OSError):
        for folder in place.iterdir():
            if time.time() - folder.stat().st_mtime > _UNUSED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
