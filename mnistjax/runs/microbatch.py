"""The number of images at a time that suits the cache of the processor."""

from __future__ import annotations

import functools
import math
import os
import re
from pathlib import Path

import jax

_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
# Size in bytes of the second level of cache of a core where the system does not tell.
_ASSUMED = 1 << 20
# What may be kept for the backward pass, in multiples of the second level of cache of all cores.
_SHARE = 8
# Fewer images at a time make matrix products too small.
_SMALLEST = 32
_WHOLE = 2**31 - 1


def microbatch_for_cache(bytes_per_image: float, cache_bytes: int | None = None) -> int:
    """Returns how many images at a time suit the caches of the processor.

    It is the largest power of two, but at least 32, for which what the forward pass keeps for the
    backward pass takes up to eight times the second-level caches of the cores that this process may
    use. Of the powers of two that were measured (benchmarks/README.md) it was the fastest one, or
    one at most 10 % slower.

    Args:
        bytes_per_image: what the forward pass keeps for the backward pass, in bytes per image.
        cache_bytes: size of the caches; `cpu_cache_bytes()` if None.

    Returns:
        A power of two on a CPU; elsewhere 2^31 - 1, so that batches stay whole.

    >>> microbatch_for_cache(1e5, cache_bytes=2 << 20)
    128
    """
    if cache_bytes is None:
        cache_bytes = cpu_cache_bytes()
    if cache_bytes is None:
        return _WHOLE
    fitting = _SHARE * cache_bytes / max(bytes_per_image, 1.0)
    return max(_SMALLEST, 2 ** math.floor(math.log2(max(fitting, 1.0))))


def cpu_cache_bytes() -> int | None:
    """Returns the size of the second-level caches of the cores that this process may use.

    It is None where JAX computes on something else than a CPU.
    """
    if jax.default_backend() != "cpu":
        return None
    return cache_sizes().get("L2", _ASSUMED) * _cores()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def cache_sizes() -> dict[str, int]:
    """Returns the sizes in bytes of the data caches of the first CPU, by level: "L1", "L2" ...

    It is empty where the system does not tell.
    """
    sizes = {}
    for folder in sorted(_CACHES.glob("index*")):
        try:
            level, kind, size = (
                (folder / name).read_text().strip() for name in ("level", "type", "size")
            )
        except OSError:
            continue
        found = re.fullmatch(r"(\d+)([KMG]?)", size)
        if found and kind != "Instruction":
            sizes[f"L{level}"] = int(found[1]) * _UNITS[found[2]]
    return sizes
