"""Caches decoded arrays in one memory-mapped file, so that later loads are fast.

A cache file is a SHA-256 digest followed by the data that it covers: the arrays in the safetensors
format (https://github.com/huggingface/safetensors#format), with metadata that identifies the files
they were decoded from. A stale, damaged or unreadable cache is ignored and rewritten; it never
causes an error.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mnistjax.atomic import atomic_path

Arrays = Mapping[str, np.ndarray]

# Stored in every cache. Increase it when the format or the decoding changes, so that older caches
# become stale.
_FORMAT = 3
_DTYPES = {"U8": np.uint8, "I32": np.int32}
_ABANDONED_SECONDS = 3600.0


def cached_arrays(
    name: str,
    data_dir: Path,
    files: Sequence[Path],
    names: Sequence[str],
    decode: Callable[[], Arrays],
) -> Arrays:
    """Returns decoded arrays from the cache, or decodes and caches them.

    Args:
        name: the data set's name.
        data_dir: the folder that the data set belongs to. The cache is in its `.mnistjax`, or in
            the user's cache directory if that is not writable. If neither is, nothing is cached.
        files: the files that `decode` reads; the cache is stale if the path below `data_dir` or
            the content of one of them changes. A file that has the size, times and inode of before
            is not read again.
        names: the names of the arrays.
        decode: returns the arrays, each uint8 or int32.

    Returns:
        The arrays by name; memory-mapped and read-only when they come from a cache.
    """
    places = cache_files(name, data_dir)
    # Not the name alone: a picture's folder is its class.
    labels = [os.path.relpath(file, data_dir) for file in files]
    for place in places:
        arrays = _read(place, name, labels, files)
        if arrays is not None and arrays.keys() == set(names):
            return arrays
    try:
        # Before decoding: a file that is replaced meanwhile makes the cache stale.
        sources = [
            [label, _status(file), _sha256(file)] for label, file in zip(labels, files, strict=True)
        ]
    except OSError:
        return decode()  # It says which file cannot be read.
    key = json.dumps([_FORMAT, name, sources])
    decoded = decode()
    for place in places:
        if is_writable(place.parent) and _write(place, key, decoded):
            break
    return decoded


def cache_files(name: str, data_dir: Path) -> tuple[Path, Path]:
    """Returns the possible paths of a cache: beside the data, and in the user's cache directory."""
    slug = name.replace("/", "-")
    digest = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:16]
    return data_dir / ".mnistjax" / f"{slug}.cache", user_cache_dir() / f"{slug}-{digest}.cache"


def user_cache_dir() -> Path:
    """Returns the folder of this package in the user's cache directory."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path("~/.cache").expanduser()) / "mnistjax"


def is_writable(folder: Path) -> bool:
    """Returns whether files can be created in a folder, which need not exist yet.

    A folder without any write permission counts as read-only even for root, who could write to it.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    writable_bits = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
    return (
        existing.is_dir()
        and bool(existing.stat().st_mode & writable_bits)
        and os.access(existing, os.W_OK | os.X_OK)
    )


def _status(path: Path) -> list[int]:
    """Returns what changes when a file is replaced or written to."""
    status = path.stat()
    # On POSIX no program can set the last two.
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path, name: str, labels: Sequence[str], files: Sequence[Path]) -> Arrays | None:
    """Returns the verified arrays of a cache, or None if it is missing, stale or damaged."""
    try:
        content = np.memmap(path, np.uint8, "r")
        digest, payload = np.split(content, [hashlib.sha256().digest_size])
        if hashlib.sha256(payload).digest() != digest.tobytes():
            return None
        # safetensors: the length of the header in eight bytes, the header as JSON, the arrays.
        # The library's own reader would copy the arrays.
        start = 8 + int.from_bytes(payload[:8].tobytes(), "little")
        header = json.loads(payload[8:start].tobytes())
        if not _is_current(json.loads(header.pop("__metadata__")["key"]), name, labels, files):
            return None
        return {name: _view(payload[start:], entry) for name, entry in header.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def _is_current(key: Any, name: str, labels: Sequence[str], files: Sequence[Path]) -> bool:
    """Returns whether a cache is of this format and data set, and its sources are these files."""
    written, cached, sources = key
    if [written, cached, len(sources)] != [_FORMAT, name, len(files)]:
        return False
    return all(
        source == label
        # A copied folder has other times and inodes, but the same content.
        and (status == _status(file) or (status[0] == _status(file)[0] and digest == _sha256(file)))
        for (source, status, digest), label, file in zip(sources, labels, files, strict=True)
    )


def _view(data: np.ndarray, entry: Mapping[str, Any]) -> np.ndarray:
    first, end = entry["data_offsets"]
    return data[first:end].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])


def _write(path: Path, key: str, arrays: Arrays) -> bool:
    """Writes a cache file, and returns whether that succeeded."""
    from safetensors.numpy import save

    payload = save(dict(arrays), {"key": key})
    try:
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            file.write(hashlib.sha256(payload).digest())
            file.write(payload)
    except OSError:
        return False
    _remove_leftovers(path)
    return True


def _remove_leftovers(path: Path) -> None:
    """Removes files left by interrupted writers, and the folder that format 1 used."""
    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
    for left in path.parent.glob(f".{path.stem}.*{path.suffix}"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED_SECONDS:
                left.unlink()
