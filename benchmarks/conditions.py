"""The conditions of a measurement; summarizing measurements, writing them and showing tables."""

from __future__ import annotations

import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax

import mnistjax

Row = dict[str, Any]

# Paths on this machine say nothing about the measurement.
_PATHS = ("--data-dir", "--python")


def conditions() -> Row:
    """Returns what a measurement depends on apart from its own settings.

    This initializes JAX's backend, so a program that measures other processes has them call it.

    Returns:
        `versions`, `platform`, `device`, `device_count`, `processor`, `cores` (all CPU cores),
        `threads` (CPU cores that this process may use), `caches` (bytes, by level), `vectors` (the
        widest vector instructions), `xla_flags`, `matmul_precision`,
        `load_average` (of the last minute, to reveal a busy machine) and `measured` (UTC).
    """
    device = jax.devices()[0]
    return {
        "versions": mnistjax.runs.package_versions(),
        "platform": device.platform,
        "device": processor() if device.platform == "cpu" else device.device_kind,
        "device_count": jax.device_count(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads(),
        **cpu_details(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "matmul_precision": str(jax.config.values["jax_default_matmul_precision"] or "default"),
        "load_average": round(os.getloadavg()[0], 2),
        "measured": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def processor() -> str:
    """Returns the name of the CPU."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_details() -> Row:
    """Returns what the speed depends on: the sizes of the caches and the vector instructions."""
    flags = _cpuinfo("flags").split()
    widest = [name for name in ("avx512f", "avx2", "avx") if name in flags]
    return {"caches": mnistjax.runs.cache_sizes(), "vectors": widest[0] if widest else "unknown"}


def _cpuinfo(field: str) -> str:
    """Returns what Linux says of the first CPU; empty elsewhere."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    found = (line.partition(":")[2].strip() for line in lines if line.startswith(field))
    return next(found, "")


def threads() -> int:
    """Returns the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def command(words: Sequence[str] | None = None) -> str:
    """Returns the command line, without the paths of data and interpreters.

    Args:
        words: the program and its arguments; those of this process if None.
    """
    program, *rest = sys.argv if words is None else words
    kept = []
    skip = False
    for word in rest:
        if skip or word.startswith(tuple(f"{flag}=" for flag in _PATHS)):
            skip = False
        elif word in _PATHS:
            skip = True
        else:
            kept.append(word)
    return shlex.join(["python", f"benchmarks/{Path(program).name}", *kept])


def spread(name: str, values: Sequence[float]) -> Row:
    """Returns the median, minimum, maximum and all values, under keys that begin with `name`."""
    return {
        name: statistics.median(values),
        f"{name}_min": min(values),
        f"{name}_max": max(values),
        f"{name}_runs": list(values),
    }


def write_json_lines(path: Path | None, rows: Iterable[Row]) -> None:
    """Writes or replaces `path`, one JSON line per row; does nothing if it is None."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def table(rows: Iterable[Row], columns: dict[str, Callable[[Row], str]]) -> str:
    """Returns a Markdown table.

    Args:
        rows: the rows to show.
        columns: for each column its title and a function that formats its cell of a row.
    """
    cells = [list(columns), *([show(row) for show in columns.values()] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) + " |"
        for line in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
